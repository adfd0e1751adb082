//! Identifiers.

/// Declares a transparent id type.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident: $repr:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $repr);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// Thread id, in the root pid namespace of the sandbox unless said
    /// otherwise.
    Tid: i32
}
id! {
    /// User id (`kuid`: of the sandbox's initial user namespace).
    Uid: u32
}
id! {
    /// Group id (`kgid`).
    Gid: u32
}

impl Uid {
    pub const ROOT: Self = Self(0);
}

impl Gid {
    pub const ROOT: Self = Self(0);
}
