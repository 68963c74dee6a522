//! The tree as a FUSE file system. Nothing is cached in the kernel: what it kept would not be lost with the power.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::FallocateFlags;

use super::tree::{Open, ROOT, Tree};

/// Longest name of a file.
const NAME_BYTES_MAX: u32 = 255;
/// How long the kernel may keep names and attributes: not at all.
const NOT_KEPT: Duration = Duration::ZERO;
const GENERATION: Generation = Generation(0);

/// See the module's header.
#[derive(Debug)]
pub(super) struct Mounted(pub(super) Arc<Tree>);

fn attributes(id: u64, metadata: &Metadata) -> FileAttr {
    let at = |time: std::io::Result<SystemTime>| time.unwrap_or(SystemTime::UNIX_EPOCH);
    let short = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    FileAttr {
        ino: INodeNo(id),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: at(metadata.accessed()),
        mtime: at(metadata.modified()),
        ctime: at(metadata.modified()),
        crtime: at(metadata.modified()),
        kind: FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile),
        perm: u16::try_from(metadata.mode() & 0o7777).unwrap_or_default(),
        nlink: short(metadata.nlink()),
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: short(metadata.rdev()),
        blksize: short(metadata.blksize()),
        flags: 0,
    }
}

fn entry(found: std::io::Result<(u64, Metadata)>, reply: ReplyEntry) {
    match found {
        Ok((id, metadata)) => reply.entry(&NOT_KEPT, &attributes(id, &metadata), GENERATION),
        Err(err) => reply.error(err.into()),
    }
}

fn empty(done: std::io::Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(err) => reply.error(err.into()),
    }
}

fn opened(handle: std::io::Result<u64>, reply: ReplyOpen) {
    match handle {
        Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO),
        Err(err) => reply.error(err.into()),
    }
}

impl Mounted {
    fn attributes(&self, id: INodeNo, reply: ReplyAttr) {
        match self.0.metadata(id.0) {
            Ok(metadata) => reply.attr(&NOT_KEPT, &attributes(id.0, &metadata)),
            Err(err) => reply.error(err.into()),
        }
    }
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.0.lookup(parent.0, name), reply);
    }

    fn forget(&self, _: &Request, id: INodeNo, count: u64) {
        self.0.forget(id.0, count);
    }

    fn getattr(&self, _: &Request, id: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.attributes(id, reply);
    }

    fn setattr(
        &self,
        _: &Request,
        id: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        len: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mode = mode.map_or(Ok(()), |mode| self.0.set_mode(id.0, mode));
        match mode.and_then(|()| len.map_or(Ok(()), |len| self.0.set_len(id.0, len))) {
            Ok(()) => self.attributes(id, reply),
            Err(err) => reply.error(err.into()),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        entry(self.0.make_directory(parent.0, name, mode & !umask), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.remove_file(parent.0, name), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.0.remove_directory(parent.0, name), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return reply.error(Errno::EINVAL);
        }
        let replaces = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        empty(self.0.rename((parent.0, name), (new_parent.0, new_name), replaces), reply);
    }

    fn link(&self, _: &Request, id: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        entry(self.0.link(id.0, new_parent.0, new_name), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.0.create(parent.0, name, mode & !umask) {
            Ok((id, metadata, handle)) => {
                let flags = FopenFlags::FOPEN_DIRECT_IO;
                reply.created(&NOT_KEPT, &attributes(id, &metadata), GENERATION, FileHandle(handle), flags);
            }
            Err(err) => reply.error(err.into()),
        }
    }

    fn open(&self, _: &Request, id: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        opened(self.0.open_file(id.0), reply);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(handle.0, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(err) => reply.error(err.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(handle.0, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(err) => reply.error(err.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.close(handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.0.sync(handle.0), reply);
    }

    fn opendir(&self, _: &Request, id: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.0.open_directory(id.0) {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(err) => reply.error(err.into()),
        }
    }

    fn readdir(&self, _: &Request, id: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let open = match self.0.opened(handle.0) {
            Ok(open) => open,
            Err(err) => return reply.error(err.into()),
        };
        let Open::Directory(_, entries) = &*open else { return reply.error(Errno::ENOTDIR) };
        // What `..` is, the kernel knows better.
        let dots = [".", ".."].map(|name| (id.0, FileType::Directory, OsStr::new(name)));
        let rest = entries.iter().map(|(name, metadata)| {
            let kind = FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile);
            (metadata.ino(), kind, name.as_os_str())
        });
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (next, (id, kind, name)) in (1..).zip(dots.into_iter().chain(rest)).skip(start) {
            if reply.add(INodeNo(id.max(ROOT)), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.close(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(self.0.sync(handle.0), reply);
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.0.space() {
            Ok((blocks, free, available, size)) => {
                let size = u32::try_from(size).unwrap_or(4_096);
                reply.statfs(blocks, free, available, 1 << 20, 1 << 19, size, NAME_BYTES_MAX, size);
            }
            Err(err) => reply.error(err.into()),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = FallocateFlags::from_bits_retain(u32::try_from(mode).unwrap_or(u32::MAX));
        if mode.is_empty() {
            return empty(self.0.extend(handle.0, offset.saturating_add(length)), reply);
        }
        // Room kept or given back behind the end changes nothing that can be read.
        if mode == FallocateFlags::KEEP_SIZE { reply.ok() } else { reply.error(Errno::EOPNOTSUPP) }
    }
}
