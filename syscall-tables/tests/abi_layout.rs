//! Sizes and offsets of the ABI structs against libc's.
//!
//! libc names some types differently from the kernel, and leaves out those
//! that only the kernel's headers have; their sizes are stated as numbers.

use std::mem::{offset_of, size_of};

use syscall_tables::abi;

macro_rules! same_size {
    ($($ours:ident = $theirs:ident,)*) => {
        $(
            assert_eq!(size_of::<abi::$ours>(), size_of::<libc::$theirs>(), stringify!($ours));
        )*
    };
}

macro_rules! same_offsets {
    ($($ours:ident = $theirs:ident { $($field:ident),* $(,)? })*) => {
        $($(
            assert_eq!(
                offset_of!(abi::$ours, $field),
                offset_of!(libc::$theirs, $field),
                concat!(stringify!($ours), ".", stringify!($field)),
            );
        )*)*
    };
}

#[test]
fn sizes_are_those_of_libc() {
    same_size! {
        Stat = stat,
        Statx = statx,
        Statfs = statfs,
        Timespec = timespec,
        Timeval = timeval,
        Itimerval = itimerval,
        Itimerspec = itimerspec,
        Utimbuf = utimbuf,
        Tms = tms,
        Timex = timex,
        Rusage = rusage,
        Rlimit = rlimit64,
        Utsname = utsname,
        Sysinfo = sysinfo,
        SchedParam = sched_param,
        SigInfo = siginfo_t,
        SigEvent = sigevent,
        SignalfdSiginfo = signalfd_siginfo,
        StackT = stack_t,
        CloneArgs = clone_args,
        OpenHow = open_how,
        PollFd = pollfd,
        EpollEvent = epoll_event,
        Flock = flock64,
        Winsize = winsize,
        Termios2 = termios2,
        Iovec = iovec,
        MsgHdr = msghdr,
        MmsgHdr = mmsghdr,
        CmsgHdr = cmsghdr,
        Ucred = ucred,
        Linger = linger,
        SockAddrIn = sockaddr_in,
        SockAddrIn6 = sockaddr_in6,
        SockAddrUn = sockaddr_un,
        SockAddrNl = sockaddr_nl,
        SockAddrLl = sockaddr_ll,
        InPktinfo = in_pktinfo,
        In6Pktinfo = in6_pktinfo,
        IpMreqn = ip_mreqn,
        Ipv6Mreq = ipv6_mreq,
        SockExtendedErr = sock_extended_err,
        NlMsgHdr = nlmsghdr,
        NlMsgErr = nlmsgerr,
        RtAttr = nlattr,
        SeccompData = seccomp_data,
        SockFilter = sock_filter,
        SockFprog = sock_fprog,
        SeccompNotifSizes = seccomp_notif_sizes,
        Regs = user_regs_struct,
        FpRegs = user_fpregs_struct,
        IpcPerm = ipc_perm,
        SemidDs = semid_ds,
        ShmidDs = shmid_ds,
        MsqidDs = msqid_ds,
        Sembuf = sembuf,
        MqAttr = mq_attr,
        ElfHeader = Elf64_Ehdr,
        ElfProgramHeader = Elf64_Phdr,
        ElfSectionHeader = Elf64_Shdr,
        InotifyEventHeader = inotify_event,
        IfReq = ifreq,
        IfConf = ifconf,
        MountAttr = mount_attr,
        Seminfo = seminfo,
        PtracePeeksiginfoArgs = ptrace_peeksiginfo_args,
        PtraceSyscallInfo = ptrace_syscall_info,
    }
}

#[test]
fn sizes_of_kernel_only_structs() {
    assert_eq!(size_of::<abi::SigAction>(), 32);
    assert_eq!(size_of::<abi::SigContext>(), 256);
    assert_eq!(offset_of!(abi::SigContext, cs), 144);
    assert_eq!(offset_of!(abi::SigContext, fpstate), 184);
    assert_eq!(size_of::<abi::UContext>(), 304);
    assert_eq!(offset_of!(abi::UContext, uc_mcontext), 40);
    assert_eq!(offset_of!(abi::UContext, uc_sigmask), 296);
    assert_eq!(size_of::<abi::RtSigFrame>(), 440);
    assert_eq!(size_of::<abi::FpxSwBytes>(), 48);
    assert_eq!(abi::FPX_SW_BYTES_OFFSET + size_of::<abi::FpxSwBytes>(), 512);
    assert_eq!(size_of::<abi::Termios>(), 36);
    assert_eq!(size_of::<abi::Dirent64Header>(), 19);
    assert_eq!(size_of::<abi::DirentHeader>(), 18);
    assert_eq!(size_of::<abi::RobustListHead>(), 24);
    assert_eq!(size_of::<abi::FutexWaitv>(), 24);
    assert_eq!(size_of::<abi::SchedAttr>(), 56);
    assert_eq!(size_of::<abi::CapUserHeader>(), 8);
    assert_eq!(size_of::<abi::CapUserData>(), 12);
    assert_eq!(size_of::<abi::VfsCapData>(), 24);
    assert_eq!(size_of::<abi::IfInfoMsg>(), 16);
    assert_eq!(size_of::<abi::IfAddrMsg>(), 8);
    assert_eq!(size_of::<abi::RtMsg>(), 12);
    assert_eq!(size_of::<abi::NdMsg>(), 12);
    assert_eq!(size_of::<abi::RtnlLinkStats64>(), 192);
    assert_eq!(size_of::<abi::TcpInfo>(), 104);
    assert_eq!(size_of::<abi::Shminfo>(), 72);
    assert_eq!(size_of::<abi::ShmInfo>(), 48);
    assert_eq!(size_of::<abi::Msginfo>(), 32);
    assert_eq!(size_of::<abi::FileAttr>(), 24);
    assert_eq!(size_of::<abi::XattrArgs>(), 16);
    assert_eq!(size_of::<abi::MntIdReq>(), 32);
}

#[test]
fn offsets_are_those_of_libc() {
    same_offsets! {
        Stat = stat { st_dev, st_ino, st_nlink, st_mode, st_uid, st_gid, st_rdev, st_size, st_blksize, st_blocks, st_atime, st_mtime, st_ctime }
        Statx = statx { stx_mask, stx_blksize, stx_attributes, stx_nlink, stx_uid, stx_gid, stx_mode, stx_ino, stx_size, stx_blocks, stx_attributes_mask, stx_atime, stx_btime, stx_ctime, stx_mtime, stx_rdev_major, stx_dev_minor, stx_mnt_id }
        Statfs = statfs { f_type, f_bsize, f_blocks, f_files, f_fsid, f_namelen, f_frsize }
        Rusage = rusage { ru_utime, ru_stime, ru_maxrss, ru_minflt, ru_nvcsw, ru_nivcsw }
        Sysinfo = sysinfo { uptime, loads, totalram, procs, totalhigh, mem_unit }
        Timex = timex { modes, offset, status, constant, time, tick, shift, stabil, tai }
        SigInfo = siginfo_t { si_signo, si_errno, si_code }
        SigEvent = sigevent { sigev_value, sigev_signo, sigev_notify, sigev_notify_thread_id }
        SignalfdSiginfo = signalfd_siginfo { ssi_signo, ssi_pid, ssi_fd, ssi_overrun, ssi_status, ssi_ptr, ssi_addr, ssi_addr_lsb, ssi_syscall, ssi_call_addr, ssi_arch }
        StackT = stack_t { ss_sp, ss_flags, ss_size }
        MsgHdr = msghdr { msg_name, msg_namelen, msg_iov, msg_iovlen, msg_control, msg_controllen, msg_flags }
        MmsgHdr = mmsghdr { msg_hdr, msg_len }
        CmsgHdr = cmsghdr { cmsg_len, cmsg_level, cmsg_type }
        Flock = flock64 { l_type, l_whence, l_start, l_len, l_pid }
        SockAddrIn6 = sockaddr_in6 { sin6_family, sin6_port, sin6_flowinfo, sin6_addr, sin6_scope_id }
        SockAddrLl = sockaddr_ll { sll_family, sll_protocol, sll_ifindex, sll_hatype, sll_pkttype, sll_halen, sll_addr }
        IpcPerm = ipc_perm { uid, gid, cuid, cgid, mode }
        SemidDs = semid_ds { sem_perm, sem_otime, sem_ctime, sem_nsems }
        ShmidDs = shmid_ds { shm_perm, shm_segsz, shm_atime, shm_cpid, shm_lpid, shm_nattch }
        MsqidDs = msqid_ds { msg_perm, msg_stime, msg_rtime, msg_ctime, msg_qnum, msg_qbytes, msg_lspid, msg_lrpid }
        Regs = user_regs_struct { r15, rbp, rax, orig_rax, rip, eflags, rsp, fs_base, gs }
        ElfHeader = Elf64_Ehdr { e_type, e_entry, e_phoff, e_phentsize, e_phnum, e_shstrndx }
        ElfProgramHeader = Elf64_Phdr { p_type, p_flags, p_offset, p_vaddr, p_filesz, p_memsz, p_align }
        SeccompData = seccomp_data { nr, arch, instruction_pointer, args }
        SockFilter = sock_filter { code, jt, jf, k }
        CloneArgs = clone_args { flags, exit_signal, tls, set_tid, cgroup }
        InotifyEventHeader = inotify_event { wd, mask, cookie, len }
        Termios2 = termios2 { c_iflag, c_lflag, c_line, c_cc, c_ispeed, c_ospeed }
    }
}

#[test]
fn values_are_those_of_libc() {
    assert_eq!(abi::OpenFlags::O_TMPFILE.bits(), libc::O_TMPFILE as u32);
    assert_eq!(abi::OpenFlags::O_SYNC.bits(), libc::O_SYNC as u32);
    assert_eq!(
        abi::makedev(0x12345, 0x6789a),
        libc::makedev(0x12345, 0x6789a)
    );
    let dev = abi::makedev(0x12345, 0x6789a);
    assert_eq!(
        (abi::dev_major(dev), abi::dev_minor(dev)),
        (0x12345, 0x6789a)
    );
    assert_eq!(abi::dirent_type(abi::S_IFLNK | 0o777), abi::DT_LNK);
    assert_eq!(abi::w_exitcode(3), libc::W_EXITCODE(3, 0));
    assert!(libc::WIFSTOPPED(abi::w_stopcode(libc::SIGTSTP)));
    assert!(libc::WIFCONTINUED(abi::W_CONTINUED));
    assert!(libc::WCOREDUMP(abi::w_termsig(libc::SIGSEGV, true)));
    assert_eq!(abi::CmsgHdr::space_of(5), cmsg_space(5));
    assert_eq!(
        abi::SigSet::of(abi::Signal::SIGCHLD).first(),
        Some(abi::Signal::SIGCHLD)
    );
    assert_eq!(abi::SigSet::EMPTY.first(), None);
    assert_eq!(abi::Signal::SIGSYS.raw(), libc::SIGSYS);
}

/// What `CMSG_SPACE` computes: header and data, each padded to a word.
fn cmsg_space(len: usize) -> usize {
    size_of::<libc::cmsghdr>().next_multiple_of(8) + len.next_multiple_of(8)
}
