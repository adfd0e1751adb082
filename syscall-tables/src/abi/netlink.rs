//! netlink(7) and rtnetlink(7) messages.

use super::names::{const_set, flag_set};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const_set! {
    /// Protocols of `AF_NETLINK`.
    NETLINK_FAMILIES: u32 {
        NETLINK_ROUTE = 0,
        NETLINK_USERSOCK = 2,
        NETLINK_SOCK_DIAG = 4,
        NETLINK_XFRM = 6,
        NETLINK_SELINUX = 7,
        NETLINK_AUDIT = 9,
        NETLINK_CONNECTOR = 11,
        NETLINK_NETFILTER = 12,
        NETLINK_KOBJECT_UEVENT = 15,
        NETLINK_GENERIC = 16,
        NETLINK_CRYPTO = 21,
    }
}

/// `nlmsg_type` of queries and answers of sock_diag(7).
pub const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// `struct inet_diag_sockid`: ports and addresses in network order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct InetDiagSockId {
    pub idiag_sport: [u8; 2],
    pub idiag_dport: [u8; 2],
    pub idiag_src: [u8; 16],
    pub idiag_dst: [u8; 16],
    pub idiag_if: u32,
    pub idiag_cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct InetDiagReqV2 {
    pub sdiag_family: u8,
    pub sdiag_protocol: u8,
    pub idiag_ext: u8,
    pub pad: u8,
    /// Bit N: sockets in state N.
    pub idiag_states: u32,
    pub id: InetDiagSockId,
}

/// `struct inet_diag_msg`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct InetDiagMsg {
    pub idiag_family: u8,
    pub idiag_state: u8,
    pub idiag_timer: u8,
    pub idiag_retrans: u8,
    pub id: InetDiagSockId,
    pub idiag_expires: u32,
    pub idiag_rqueue: u32,
    pub idiag_wqueue: u32,
    pub idiag_uid: u32,
    pub idiag_inode: u32,
}

const_set! {
    /// `nlmsg_type` of control and route messages.
    NLMSG_TYPES: u16 {
        NLMSG_NOOP = 1,
        NLMSG_ERROR = 2,
        NLMSG_DONE = 3,
        NLMSG_OVERRUN = 4,
        RTM_NEWLINK = 16,
        RTM_DELLINK = 17,
        RTM_GETLINK = 18,
        RTM_SETLINK = 19,
        RTM_NEWADDR = 20,
        RTM_DELADDR = 21,
        RTM_GETADDR = 22,
        RTM_NEWROUTE = 24,
        RTM_DELROUTE = 25,
        RTM_GETROUTE = 26,
        RTM_NEWNEIGH = 28,
        RTM_DELNEIGH = 29,
        RTM_GETNEIGH = 30,
        RTM_NEWRULE = 32,
        RTM_DELRULE = 33,
        RTM_GETRULE = 34,
        RTM_NEWQDISC = 36,
        RTM_DELQDISC = 37,
        RTM_GETQDISC = 38,
        RTM_GETSTATS = 94,
        RTM_GETNSID = 90,
        RTM_GETNETCONF = 82,
        RTM_GETNEIGHTBL = 66,
    }
}

flag_set! {
    /// `nlmsg_flags`.
    NlmFlags: u16, NLM_FLAGS {
        NLM_F_DUMP = 0x300,
        NLM_F_REQUEST = 0x1,
        NLM_F_MULTI = 0x2,
        NLM_F_ACK = 0x4,
        NLM_F_ECHO = 0x8,
        NLM_F_DUMP_INTR = 0x10,
        NLM_F_DUMP_FILTERED = 0x20,
        NLM_F_ROOT = 0x100,
        NLM_F_MATCH = 0x200,
        NLM_F_ATOMIC = 0x400,
    }
}

// `nlmsg_flags` of new objects and acknowledgements, which share bits with the dump flags.
pub const NLM_F_REPLACE: u16 = 0x100;
pub const NLM_F_EXCL: u16 = 0x200;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLM_F_APPEND: u16 = 0x800;
pub const NLM_F_CAPPED: u16 = 0x100;
pub const NLM_F_ACK_TLVS: u16 = 0x200;

const_set! {
    /// Options at `SOL_NETLINK`.
    NETLINK_OPTIONS: u32 {
        NETLINK_ADD_MEMBERSHIP = 1,
        NETLINK_DROP_MEMBERSHIP = 2,
        NETLINK_PKTINFO = 3,
        NETLINK_BROADCAST_ERROR = 4,
        NETLINK_NO_ENOBUFS = 5,
        NETLINK_LISTEN_ALL_NSID = 8,
        NETLINK_LIST_MEMBERSHIPS = 9,
        NETLINK_CAP_ACK = 10,
        NETLINK_EXT_ACK = 11,
        NETLINK_GET_STRICT_CHK = 12,
    }
}

const_set! {
    /// Attributes of links.
    IFLA: u16 {
        IFLA_UNSPEC = 0,
        IFLA_ADDRESS = 1,
        IFLA_BROADCAST = 2,
        IFLA_IFNAME = 3,
        IFLA_MTU = 4,
        IFLA_LINK = 5,
        IFLA_QDISC = 6,
        IFLA_STATS = 7,
        IFLA_MASTER = 10,
        IFLA_TXQLEN = 13,
        IFLA_OPERSTATE = 16,
        IFLA_LINKMODE = 17,
        IFLA_LINKINFO = 18,
        IFLA_NET_NS_PID = 19,
        IFLA_IFALIAS = 20,
        IFLA_NUM_VF = 21,
        IFLA_STATS64 = 23,
        IFLA_AF_SPEC = 26,
        IFLA_GROUP = 27,
        IFLA_NET_NS_FD = 28,
        IFLA_EXT_MASK = 29,
        IFLA_PROMISCUITY = 30,
        IFLA_NUM_TX_QUEUES = 31,
        IFLA_NUM_RX_QUEUES = 32,
        IFLA_CARRIER = 33,
        IFLA_CARRIER_CHANGES = 35,
        IFLA_GSO_MAX_SEGS = 40,
        IFLA_GSO_MAX_SIZE = 41,
        IFLA_MIN_MTU = 50,
        IFLA_MAX_MTU = 51,
    }
}

const_set! {
    /// Attributes of addresses.
    IFA: u16 {
        IFA_UNSPEC = 0,
        IFA_ADDRESS = 1,
        IFA_LOCAL = 2,
        IFA_LABEL = 3,
        IFA_BROADCAST = 4,
        IFA_ANYCAST = 5,
        IFA_CACHEINFO = 6,
        IFA_MULTICAST = 7,
        IFA_FLAGS = 8,
        IFA_RT_PRIORITY = 9,
    }
}

const_set! {
    /// Attributes of routes.
    RTA: u16 {
        RTA_UNSPEC = 0,
        RTA_DST = 1,
        RTA_SRC = 2,
        RTA_IIF = 3,
        RTA_OIF = 4,
        RTA_GATEWAY = 5,
        RTA_PRIORITY = 6,
        RTA_PREFSRC = 7,
        RTA_METRICS = 8,
        RTA_MULTIPATH = 9,
        RTA_FLOW = 11,
        RTA_CACHEINFO = 12,
        RTA_TABLE = 15,
        RTA_MARK = 16,
        RTA_PREF = 20,
    }
}

const_set! {
    /// Attributes of neighbours.
    NDA: u16 {
        NDA_UNSPEC = 0,
        NDA_DST = 1,
        NDA_LLADDR = 2,
        NDA_CACHEINFO = 3,
        NDA_PROBES = 4,
    }
}

flag_set! {
    /// Flags of network interfaces.
    IfFlags: u32, IF_FLAGS {
        IFF_UP = 0x1,
        IFF_BROADCAST = 0x2,
        IFF_DEBUG = 0x4,
        IFF_LOOPBACK = 0x8,
        IFF_POINTOPOINT = 0x10,
        IFF_NOTRAILERS = 0x20,
        IFF_RUNNING = 0x40,
        IFF_NOARP = 0x80,
        IFF_PROMISC = 0x100,
        IFF_ALLMULTI = 0x200,
        IFF_MASTER = 0x400,
        IFF_SLAVE = 0x800,
        IFF_MULTICAST = 0x1000,
        IFF_PORTSEL = 0x2000,
        IFF_AUTOMEDIA = 0x4000,
        IFF_DYNAMIC = 0x8000,
        IFF_LOWER_UP = 0x10000,
        IFF_DORMANT = 0x20000,
        IFF_ECHO = 0x40000,
    }
}

// Hardware types of `ifi_type`.
pub const ARPHRD_ETHER: u16 = 1;
pub const ARPHRD_LOOPBACK: u16 = 772;
pub const ARPHRD_NONE: u16 = 0xfffe;

// `ifa_flags`.
pub const IFA_F_SECONDARY: u8 = 0x1;
pub const IFA_F_NODAD: u8 = 0x2;
pub const IFA_F_TENTATIVE: u8 = 0x40;
pub const IFA_F_PERMANENT: u8 = 0x80;

// `rtm_table`, `rtm_protocol`, `rtm_scope`, `rtm_type`.
pub const RT_TABLE_UNSPEC: u8 = 0;
pub const RT_TABLE_MAIN: u8 = 254;
pub const RT_TABLE_LOCAL: u8 = 255;
pub const RTPROT_UNSPEC: u8 = 0;
pub const RTPROT_KERNEL: u8 = 2;
pub const RTPROT_BOOT: u8 = 3;
pub const RTPROT_STATIC: u8 = 4;
pub const RT_SCOPE_UNIVERSE: u8 = 0;
pub const RT_SCOPE_SITE: u8 = 200;
pub const RT_SCOPE_LINK: u8 = 253;
pub const RT_SCOPE_HOST: u8 = 254;
pub const RT_SCOPE_NOWHERE: u8 = 255;
pub const RTN_UNSPEC: u8 = 0;
pub const RTN_UNICAST: u8 = 1;
pub const RTN_LOCAL: u8 = 2;
pub const RTN_BROADCAST: u8 = 3;
pub const RTN_ANYCAST: u8 = 4;
pub const RTN_MULTICAST: u8 = 5;
pub const RTN_BLACKHOLE: u8 = 6;
pub const RTN_UNREACHABLE: u8 = 7;

/// `struct nlmsghdr`; messages are aligned to 4 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NlMsgHdr {
    pub nlmsg_len: u32,
    pub nlmsg_type: u16,
    pub nlmsg_flags: u16,
    pub nlmsg_seq: u32,
    pub nlmsg_pid: u32,
}

/// `struct nlmsgerr`; the refused message follows unless capped.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NlMsgErr {
    /// Negative errno, 0 for an acknowledgement.
    pub error: i32,
    pub msg: NlMsgHdr,
}

/// `struct nlattr` and `struct rtattr`: header of an attribute, aligned to 4 bytes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RtAttr {
    pub rta_len: u16,
    pub rta_type: u16,
}

/// Attribute type bits that are not the type.
pub const NLA_TYPE_MASK: u16 = 0x3fff;

/// `struct ifinfomsg`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct IfInfoMsg {
    pub ifi_family: u8,
    pub __ifi_pad: u8,
    pub ifi_type: u16,
    pub ifi_index: i32,
    pub ifi_flags: u32,
    pub ifi_change: u32,
}

/// `struct ifaddrmsg`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct IfAddrMsg {
    pub ifa_family: u8,
    pub ifa_prefixlen: u8,
    pub ifa_flags: u8,
    pub ifa_scope: u8,
    pub ifa_index: u32,
}

/// `struct ifa_cacheinfo`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct IfaCacheinfo {
    pub ifa_prefered: u32,
    pub ifa_valid: u32,
    pub cstamp: u32,
    pub tstamp: u32,
}

/// `struct rtmsg`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RtMsg {
    pub rtm_family: u8,
    pub rtm_dst_len: u8,
    pub rtm_src_len: u8,
    pub rtm_tos: u8,
    pub rtm_table: u8,
    pub rtm_protocol: u8,
    pub rtm_scope: u8,
    pub rtm_type: u8,
    pub rtm_flags: u32,
}

/// `struct rtgenmsg`, the short form of a dump request's payload.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RtGenMsg {
    pub rtgen_family: u8,
}

/// `struct ndmsg`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct NdMsg {
    pub ndm_family: u8,
    pub ndm_pad1: u8,
    pub ndm_pad2: u16,
    pub ndm_ifindex: i32,
    pub ndm_state: u16,
    pub ndm_flags: u8,
    pub ndm_type: u8,
}

/// `struct rtnl_link_stats64` (the 24 counters of `IFLA_STATS64`).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RtnlLinkStats64 {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub multicast: u64,
    pub collisions: u64,
    pub rx_length_errors: u64,
    pub rx_over_errors: u64,
    pub rx_crc_errors: u64,
    pub rx_frame_errors: u64,
    pub rx_fifo_errors: u64,
    pub rx_missed_errors: u64,
    pub tx_aborted_errors: u64,
    pub tx_carrier_errors: u64,
    pub tx_fifo_errors: u64,
    pub tx_heartbeat_errors: u64,
    pub tx_window_errors: u64,
    pub rx_compressed: u64,
    pub tx_compressed: u64,
    pub rx_nohandler: u64,
}
