//! Names of numbers: what strace output, documentation and fuzzers need to
//! know about a flag word or an enumerated argument.
//!
//! [`flag_set!`] declares a bitflags type and its [`NameSet`] at once,
//! [`const_set!`] plain constants and theirs, so a name is written once.

/// One name of a value, or of the bits of a flag word under a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// The C macro's name.
    pub name: &'static str,
    /// The value of the bits under [`Self::mask`].
    pub value: u64,
    /// Bits this name speaks of; all ones in an enumeration.
    pub mask: u64,
}

/// The names of a flag word's bits and fields, or of an enumeration's values.
#[derive(Clone, Copy, Debug)]
pub struct NameSet {
    /// The Rust name of the set, for documentation.
    pub name: &'static str,
    /// Width of the value: what is above is not part of it.
    pub bits: u32,
    /// The names, in order of declaration.
    pub names: &'static [Name],
}

impl NameSet {
    /// The first name of a value; of arguments of up to 32 bits only the low
    /// 32 count, as in the kernel.
    pub fn name_of(&self, value: u64) -> Option<&'static str> {
        let mask = if self.bits > 32 {
            u64::MAX
        } else {
            u32::MAX.into()
        };
        self.names
            .iter()
            .find(|n| (n.value ^ value) & mask == 0)
            .map(|n| n.name)
    }
}

/// Declares a bitflags type over a raw word, and a static [`NameSet`] for it.
///
/// `field MASK { … }` adds values of a multi-bit field (`O_ACCMODE`), which
/// become plain associated constants of the type.
macro_rules! flag_set {
    (
        $(#[$meta:meta])*
        $ty:ident: $base:ty, $table:ident {
            $($name:ident = $value:expr,)*
        }
        $(field $mask:literal {
            $($fname:ident = $fvalue:expr,)*
        })*
    ) => {
        bitflags::bitflags! {
            $(#[$meta])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
            pub struct $ty: $base {
                $(
                    #[doc = concat!("`", stringify!($name), "`.")]
                    const $name = $value;
                )*
            }
        }
        $(
            impl $ty {
                $(
                    #[doc = concat!("`", stringify!($fname), "`, a value of the field with mask `", stringify!($mask), "`.")]
                    pub const $fname: Self = Self::from_bits_retain($fvalue);
                )*
            }
        )*
        #[doc = concat!("Names of [`", stringify!($ty), "`].")]
        pub static $table: $crate::abi::names::NameSet = $crate::abi::names::NameSet {
            name: stringify!($ty),
            bits: <$base>::BITS,
            names: &[
                $($($crate::abi::names::Name {
                    name: stringify!($fname),
                    value: $ty::$fname.bits() as u64,
                    mask: $mask,
                },)*)*
                $($crate::abi::names::Name {
                    name: stringify!($name),
                    value: $ty::$name.bits() as u64,
                    mask: $ty::$name.bits() as u64,
                },)*
            ],
        };
    };
}

/// Declares plain constants of one type, and a static [`NameSet`] of them.
macro_rules! const_set {
    (
        $(#[$meta:meta])*
        $table:ident: $base:ty {
            $($name:ident = $value:expr,)*
        }
    ) => {
        $(
            #[doc = concat!("`", stringify!($name), "`.")]
            pub const $name: $base = $value;
        )*
        $(#[$meta])*
        pub static $table: $crate::abi::names::NameSet = $crate::abi::names::NameSet {
            name: stringify!($table),
            bits: <$base>::BITS,
            names: &[
                $($crate::abi::names::Name {
                    name: stringify!($name),
                    value: $name as u64,
                    mask: u64::MAX,
                },)*
            ],
        };
    };
}

pub(crate) use {const_set, flag_set};
