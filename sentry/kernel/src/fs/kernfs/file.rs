//! Files with generated content.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sentry_platform::BoxFuture;
use syscall_tables::Errno;

use super::Instance;
use crate::kernel::Kernel;
use crate::task::{Creds, Task};
use crate::vfs::{Attr, File, FileKind, FileOps, Inode, OpenRequest, SetAttr};

/// Who reads or writes a generated file.
pub struct Viewer {
    pub kernel: Arc<Kernel>,
    /// `None` for the sentry itself, or if the task is gone.
    pub task: Option<Arc<Task>>,
    /// Credentials of who opened the file; `None` for the sentry itself.
    pub creds: Option<Arc<Creds>>,
}

impl Viewer {
    /// The task that reads or writes; `EPERM` without one.
    pub fn task(&self) -> Result<&Arc<Task>, Errno> {
        self.task.as_ref().ok_or(Errno::EPERM)
    }

    /// Credentials of who opened the file; `EPERM` without any.
    pub fn creds(&self) -> Result<&Arc<Creds>, Errno> {
        self.creds.as_ref().ok_or(Errno::EPERM)
    }
}

/// Makes and takes the content of a file. Closures make content that can't be
/// written.
pub trait Source: Send + Sync {
    fn text(&self, viewer: &Viewer) -> Result<Vec<u8>, Errno>;

    /// Takes what one write call wrote, at `offset`; all of it or nothing.
    fn write(&self, _viewer: &Viewer, _data: &[u8], _offset: u64) -> Result<(), Errno> {
        Err(Errno::EIO)
    }

    /// Whose size the content tells of: the host may have to be asked before
    /// it is made.
    fn tells_size_of(&self) -> SizeOf {
        SizeOf::Nothing
    }

    /// Whether it may be opened so.
    fn check_open(&self, _viewer: &Viewer, _request: &OpenRequest) -> Result<(), Errno> {
        Ok(())
    }
}

impl<F> Source for F
where
    F: Fn(&Viewer) -> Result<Vec<u8>, Errno> + Send + Sync,
{
    fn text(&self, viewer: &Viewer) -> Result<Vec<u8>, Errno> {
        self(viewer)
    }
}

/// Address spaces that are measured before content is made.
#[derive(Clone)]
pub enum SizeOf {
    Nothing,
    One(Arc<Task>),
    All,
}

/// Content that tells how much memory the whole sandbox uses.
pub struct Measured<F>(pub F);

impl<F> Source for Measured<F>
where
    F: Fn(&Viewer) -> Result<Vec<u8>, Errno> + Send + Sync,
{
    fn text(&self, viewer: &Viewer) -> Result<Vec<u8>, Errno> {
        (self.0)(viewer)
    }

    fn tells_size_of(&self) -> SizeOf {
        SizeOf::All
    }
}

/// Content that never changes.
pub fn fixed<T: Into<Vec<u8>>>(content: T) -> impl Source + use<T> {
    let content = content.into();
    move |_: &Viewer| Ok(content.clone())
}

/// Content that can be written: two closures.
pub struct Knob<R, W> {
    pub read: R,
    pub write: W,
}

impl<R, W> Source for Knob<R, W>
where
    R: Fn(&Viewer) -> Result<Vec<u8>, Errno> + Send + Sync,
    W: Fn(&Viewer, &[u8]) -> Result<(), Errno> + Send + Sync,
{
    fn text(&self, viewer: &Viewer) -> Result<Vec<u8>, Errno> {
        (self.read)(viewer)
    }

    fn write(&self, viewer: &Viewer, data: &[u8], _offset: u64) -> Result<(), Errno> {
        (self.write)(viewer, data)
    }
}

/// A file owned by root.
pub struct TextFile {
    instance: Arc<Instance>,
    ino: u64,
    perm: u32,
    source: Arc<dyn Source>,
}

impl TextFile {
    pub fn new(
        instance: &Arc<Instance>,
        ino: u64,
        perm: u32,
        source: Arc<dyn Source>,
    ) -> Arc<Self> {
        Arc::new(Self {
            instance: instance.clone(),
            ino,
            perm,
            source,
        })
    }
}

impl Inode for TextFile {
    fn kind(&self) -> FileKind {
        FileKind::Regular
    }

    fn attr(&self) -> Result<Attr, Errno> {
        Ok(self.instance.attr(FileKind::Regular, self.perm, self.ino))
    }

    fn set_attr(&self, changes: &SetAttr) -> Result<(), Errno> {
        super::set_attr(changes)
    }

    fn open(self: Arc<Self>, request: &OpenRequest) -> Result<Arc<dyn FileOps>, Errno> {
        self.open_by(request, None)
    }

    fn open_by(
        self: Arc<Self>,
        request: &OpenRequest,
        caller: Option<&Arc<Task>>,
    ) -> Result<Arc<dyn FileOps>, Errno> {
        let open = OpenText::new(&self.instance, self.source.clone(), request, caller)?;
        Ok(Arc::new(open))
    }
}

/// An open [`TextFile`] or its like.
pub struct OpenText {
    instance: Arc<Instance>,
    source: Arc<dyn Source>,
    /// Weak: a task holds its files.
    opener: Weak<Task>,
    creds: Option<Arc<Creds>>,
    snapshot: Mutex<Option<Vec<u8>>>,
}

impl OpenText {
    /// Opens `source` for `caller`.
    pub fn new(
        instance: &Arc<Instance>,
        source: Arc<dyn Source>,
        request: &OpenRequest,
        caller: Option<&Arc<Task>>,
    ) -> Result<Self, Errno> {
        let viewer = Viewer {
            kernel: instance.kernel()?,
            task: caller.cloned(),
            creds: caller.map(|caller| caller.creds()),
        };
        source.check_open(&viewer, request)?;
        Ok(Self {
            instance: instance.clone(),
            source,
            opener: caller.map_or_else(Weak::new, Arc::downgrade),
            creds: viewer.creds,
            snapshot: Mutex::new(None),
        })
    }

    /// `task`, or else the opener, as the one who reads or writes.
    pub fn viewer(&self, task: Option<&Arc<Task>>) -> Result<Viewer, Errno> {
        Ok(Viewer {
            kernel: self.instance.kernel()?,
            task: task.cloned().or_else(|| self.opener.upgrade()),
            creds: self.creds.clone(),
        })
    }

    fn read_for(
        &self,
        reader: Option<&Arc<Task>>,
        buf: &mut [u8],
        offset: u64,
    ) -> Result<usize, Errno> {
        let mut snapshot = self.snapshot.lock();
        let text = match &mut *snapshot {
            Some(text) if offset != 0 => text,
            stale => stale.insert(self.source.text(&self.viewer(reader)?)?),
        };
        Ok(copy_from(text, buf, offset))
    }
}

/// Copies what of `text` lies at `offset`.
pub fn copy_from(text: &[u8], buf: &mut [u8], offset: u64) -> usize {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let rest = text.get(from..).unwrap_or_default();
    let len = rest.len().min(buf.len());
    for (to, from) in buf.iter_mut().zip(rest) {
        *to = *from;
    }
    len
}

impl FileOps for OpenText {
    fn read_at(&self, _file: &File, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
        self.read_for(None, buf, offset)
    }

    fn read_as(&self, reader: &Arc<Task>, file: &File, buf: &mut [u8]) -> Result<usize, Errno> {
        let mut position = file.position.lock();
        let count = self.read_for(Some(reader), buf, *position)?;
        *position = position.saturating_add(count as u64);
        Ok(count)
    }

    fn is_guest_memory(&self) -> bool {
        !matches!(self.source.tells_size_of(), SizeOf::Nothing)
    }

    fn read_memory<'a>(
        &'a self,
        reader: &'a Arc<Task>,
        file: &'a File,
        buf: &'a mut [u8],
        offset: Option<u64>,
    ) -> BoxFuture<'a, Result<usize, Errno>> {
        Box::pin(async move {
            let kernel = self.instance.kernel()?;
            match self.source.tells_size_of() {
                SizeOf::Nothing => {}
                SizeOf::One(task) => kernel.measure(&task.mm()).await,
                SizeOf::All => kernel.measure_all().await,
            }
            match offset {
                Some(offset) => self.read_for(Some(reader), buf, offset),
                None => self.read_as(reader, file, buf),
            }
        })
    }

    fn write_memory<'a>(
        &'a self,
        writer: &'a Arc<Task>,
        file: &'a File,
        buf: &'a [u8],
        offset: Option<u64>,
    ) -> BoxFuture<'a, Result<usize, Errno>> {
        Box::pin(async move {
            match offset {
                Some(offset) => Ok(self.write_at(file, buf, offset, false)?.0),
                None => self.write_as(writer, file, buf),
            }
        })
    }

    fn write_at(
        &self,
        _file: &File,
        buf: &[u8],
        offset: u64,
        _append: bool,
    ) -> Result<(usize, u64), Errno> {
        self.source.write(&self.viewer(None)?, buf, offset)?;
        Ok((buf.len(), offset.saturating_add(buf.len() as u64)))
    }

    fn write_as(&self, writer: &Arc<Task>, file: &File, buf: &[u8]) -> Result<usize, Errno> {
        let mut position = file.position.lock();
        self.source
            .write(&self.viewer(Some(writer))?, buf, *position)?;
        *position = position.saturating_add(buf.len() as u64);
        Ok(buf.len())
    }

    fn is_seekable(&self) -> bool {
        true
    }

    fn end_position(&self, _file: &File) -> Result<u64, Errno> {
        Err(Errno::EINVAL)
    }

    fn truncate(&self, _file: &File, _size_bytes: u64) -> Result<(), Errno> {
        Ok(())
    }
}
