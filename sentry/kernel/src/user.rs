//! Guest addresses. A user pointer is a claim, checked when it is used.

use std::marker::PhantomData;

use syscall_tables::Errno;

/// An address a guest named, with the type it says is there.
pub struct UserPtr<T> {
    pub addr: u64,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> UserPtr<T> {
    pub const fn new(addr: u64) -> Self {
        Self {
            addr,
            kind: PhantomData,
        }
    }

    pub const fn is_null(self) -> bool {
        self.addr == 0
    }

    /// `None` for a null pointer.
    pub fn non_null(self) -> Option<Self> {
        (!self.is_null()).then_some(self)
    }

    /// The address of element `index` of an array that starts here.
    pub fn element(self, index: usize) -> Result<Self, Errno> {
        let offset = index
            .checked_mul(size_of::<T>())
            .and_then(|offset| u64::try_from(offset).ok())
            .ok_or(Errno::EFAULT)?;
        let addr = self.addr.checked_add(offset).ok_or(Errno::EFAULT)?;
        Ok(Self::new(addr))
    }
}

/// Arguments of a system call, as raw registers.
#[derive(Clone, Copy, Debug)]
pub struct Args(pub [u64; 6]);

impl Args {
    pub const fn raw(&self, index: usize) -> u64 {
        self.0[index]
    }

    pub const fn i32(&self, index: usize) -> i32 {
        self.0[index] as i32
    }

    pub const fn u32(&self, index: usize) -> u32 {
        self.0[index] as u32
    }

    pub const fn i64(&self, index: usize) -> i64 {
        self.0[index] as i64
    }

    pub const fn usize(&self, index: usize) -> usize {
        self.0[index] as usize
    }

    pub const fn ptr<T>(&self, index: usize) -> UserPtr<T> {
        UserPtr::new(self.0[index])
    }
}
