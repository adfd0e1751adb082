//! The memory devices (`null(4)`, `full(4)`, `random(4)`).

use std::sync::Arc;

use sentry_platform::BoxFuture;
use sentry_platform::host::random;
use syscall_tables::Errno;

use crate::ctx::{Ctx, SysResult};
use crate::user::UserPtr;
use crate::vfs::device::{DeviceOpen, DeviceRegistry};
use crate::vfs::{File, FileKind, FileOps, MapSource, OpenMode};

/// Major number of memory devices.
const MAJOR: u32 = 1;

/// `RNDGETENTCNT`, and the answer: as much as the pool holds.
const RNDGETENTCNT: u32 = 0x8004_5200;
const ENTROPY_BITS: i32 = 256;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Device {
    Null,
    Zero,
    Full,
    Random,
}

impl Device {
    fn fill(self, buf: &mut [u8]) -> Result<usize, Errno> {
        match self {
            Self::Null => return Ok(0),
            Self::Zero | Self::Full => buf.fill(0),
            Self::Random => random::fill(buf)?,
        }
        Ok(buf.len())
    }

    fn take(self, buf: &[u8]) -> Result<usize, Errno> {
        match self {
            Self::Full => Err(Errno::ENOSPC),
            _ => Ok(buf.len()),
        }
    }
}

/// None of them has a position: seeks do nothing.
impl FileOps for Device {
    fn read_at(&self, _file: &File, buf: &mut [u8], _offset: u64) -> Result<usize, Errno> {
        self.fill(buf)
    }

    fn write_at(
        &self,
        _file: &File,
        buf: &[u8],
        _offset: u64,
        _append: bool,
    ) -> Result<(usize, u64), Errno> {
        Ok((self.take(buf)?, 0))
    }

    fn read(&self, _file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        self.fill(buf)
    }

    fn write(&self, _file: &File, buf: &[u8]) -> Result<usize, Errno> {
        self.take(buf)
    }

    fn takes_nowait(&self, _mode: OpenMode) -> bool {
        *self != Self::Full
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn stays_at_start(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        Ok(0)
    }

    fn map(&self, _file: &File) -> Result<MapSource, Errno> {
        match self {
            Self::Zero => Ok(MapSource::Zero),
            _ => Err(Errno::ENODEV),
        }
    }

    fn ioctl<'a>(
        &'a self,
        ctx: &'a mut Ctx<'_>,
        _file: &'a File,
        command: u32,
        arg: u64,
    ) -> BoxFuture<'a, SysResult> {
        Box::pin(async move {
            if *self == Self::Random && command == RNDGETENTCNT {
                ctx.write(UserPtr::new(arg), &ENTROPY_BITS).await?;
                return Ok(0);
            }
            Err(if *self == Self::Random {
                Errno::EINVAL
            } else {
                Errno::ENOTTY
            })
        })
    }
}

/// Makes the devices known.
pub fn register(devices: &DeviceRegistry) {
    let drivers = [
        (3, Device::Null),
        (5, Device::Zero),
        (7, Device::Full),
        (8, Device::Random),
        (9, Device::Random),
    ];
    for (minor, device) in drivers {
        let opener = Arc::new(move |_: &DeviceOpen<'_>| {
            let ops: Arc<dyn FileOps> = Arc::new(device);
            Ok(ops)
        });
        devices.register(FileKind::CharDevice, MAJOR, Some(minor), opener);
    }
}
