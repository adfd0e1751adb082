//! `/proc/net`: the loopback interface and, from `sockets.rs`, tables of
//! sockets. Each shows the network namespace of who reads it.

use std::sync::Arc;

use crate::fs::kernfs::{Builder, Instance, StaticDir, Viewer};

pub(super) const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     \n";
pub(super) const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
pub(super) const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops             \n";
pub(super) const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";
pub(super) const UNIX: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";
const DEV: &str = "Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0\n";
const ROUTE: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT                                                       \n";
const ARP: &str =
    "IP address       HW type     Flags       HW address            Mask     Device\n";
const IF_INET6: &str = "00000000000000000000000000000001 01 80 10 80       lo\n";
const IPV6_ROUTE: &str = "00000000000000000000000000000001 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001       lo\n";
const SNMP: &str = "Ip: Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates OutTransmits\nIp: 2 64 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\nIcmp: InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos InEchoReps InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutRateLimitGlobal OutRateLimitHost OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps OutTimestampReps OutAddrMasks OutAddrMaskReps\nIcmp: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors\nTcp: 1 200 120000 -1 0 0 0 0 0 0 0 0 0 0 0\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\nUdp: 0 0 0 0 0 0 0 0 0\n";
const NETSTAT: &str = "TcpExt: SyncookiesSent ListenOverflows ListenDrops\nTcpExt: 0 0 0\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 0 0\n";
const NETLINK: &str =
    "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n";
const PACKET: &str = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n";
const PROTOCOLS: &str = "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re bi br ha uh gp em\n";

/// What the host says, where the reader's network namespace is on it.
pub(super) fn from_host(viewer: &Viewer, name: &str) -> Option<Vec<u8>> {
    let task = viewer.task().ok()?;
    viewer.kernel.net.host_of(task)?.table(name)
}

/// Makes the directory of an instance.
pub(super) fn build(instance: &Arc<Instance>) -> Arc<StaticDir> {
    let ino = instance.next_ino();
    let mut dir = Builder::with_ino(instance, ino, ino);
    let texts = [
        ("raw", UDP),
        ("raw6", UDP6),
        ("icmp", UDP),
        ("icmp6", UDP6),
        ("dev", DEV),
        ("route", ROUTE),
        ("arp", ARP),
        ("if_inet6", IF_INET6),
        ("ipv6_route", IPV6_ROUTE),
        ("snmp", SNMP),
        ("snmp6", ""),
        ("netstat", NETSTAT),
        ("netlink", NETLINK),
        ("packet", PACKET),
        ("protocols", PROTOCOLS),
        ("ptype", "Type Device      Function\n"),
        ("psched", "000003e8 00000040 000f4240 3b9aca00\n"),
        ("dev_mcast", ""),
        (
            "igmp",
            "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n",
        ),
        ("igmp6", ""),
        (
            "wireless",
            "Inter-| sta-|   Quality        |   Discarded packets               | Missed | WE\n face | tus | link level noise |  nwid  crypt   frag  retry   misc | beacon | 22\n",
        ),
    ];
    super::sockets::fill(&mut dir);
    for (name, content) in texts {
        dir.file(name, 0o444, move |viewer: &Viewer| {
            Ok(from_host(viewer, name).unwrap_or_else(|| content.as_bytes().to_vec()))
        });
    }
    dir.dir("stat", |_| {});
    dir.dir("netfilter", |_| {});
    dir.build()
}
