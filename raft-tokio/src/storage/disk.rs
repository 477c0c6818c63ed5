//! The little that the log wants of a disk: one flat directory of files that are written in
//! place, synced and renamed. [`FileDisk`] is the real one; crash tests and simulations bring
//! their own, so that every line of the log's code runs under them, without threads.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::StorageError;
use super::identity;

/// One directory of files.
///
/// What the log relies on: a write is durable once [`DiskFile::sync`] of its file has returned,
/// and a created, renamed or removed name once [`Disk::sync`] has; before that, any part of them
/// may be lost in a crash, in any order, but 512 aligned bytes change all or not at all.
pub trait Disk: Send + Sync + 'static {
    /// Where a name is, for messages; the directory itself for the empty name.
    fn path(&self, name: &str) -> PathBuf;

    /// The names in the directory, in any order.
    ///
    /// # Errors
    /// If the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Creates an empty file, in place of one of that name if there is one.
    ///
    /// # Errors
    /// If it cannot be created.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// If there is none of that name, or it cannot be opened.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name, which nobody else has.
    ///
    /// # Errors
    /// If it cannot be renamed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// If it cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the directory durable: which names there are, and for which files.
    ///
    /// # Errors
    /// If that fails; nobody knows then which names will be there after a crash.
    fn sync(&self) -> io::Result<()>;
}

/// An open file of a [`Disk`].
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// If it cannot be found out.
    fn length(&self) -> io::Result<u64>;

    /// Reads up to `buffer.len()` bytes at `offset`; 0 means the end of the file.
    ///
    /// # Errors
    /// If the disk cannot give them.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file if it has to.
    ///
    /// # Errors
    /// If not all of it could be written; nobody knows then how much was.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written so far durable, with what is needed to read it back (`fdatasync`).
    ///
    /// # Errors
    /// If that fails; nobody knows then what is durable, and asking again proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of a file system, locked for as long as this lives.
#[derive(Debug)]
pub struct FileDisk {
    dir: PathBuf,
    /// Held, not used: the lock goes with the open file. It is on the identity file, so that
    /// there is no lock file for an operator in a hurry to delete.
    _lock: Option<File>,
}

impl FileDisk {
    /// Locks a formatted data directory for this process.
    ///
    /// # Errors
    /// If there is no such directory, if it is empty or not a data directory, or if it is in use.
    pub fn lock(dir: &Path) -> Result<Self, StorageError> {
        let names = match names(dir) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(StorageError::Missing { dir: dir.to_path_buf() });
            }
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let found = "it is not a directory".to_owned();
                return Err(StorageError::NotADataDirectory { dir: dir.to_path_buf(), found });
            }
            Err(error) => return Err(StorageError::io("read the directory", dir, error)),
        };
        identity::recognise(dir, &names)?;
        let path = dir.join(identity::FILE);
        // Opened for writing although nothing is written: some network file systems lock nothing else.
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|error| StorageError::io("open", &path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_path_buf(), _lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => Err(StorageError::InUse { dir: dir.to_path_buf() }),
            Err(TryLockError::Error(error)) => Err(StorageError::io("lock", &path, error)),
        }
    }

    /// A directory that nobody else can know of yet.
    pub(super) fn private(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), _lock: None }
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The names in a directory. One that is not text is of no file of ours; it still counts as something that is there.
pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

impl Disk for FileDisk {
    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.dir.clone() } else { self.dir.join(name) }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        names(&self.dir)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(self.path(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(OpenOptions::new().read(true).write(true).open(self.path(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync(&self) -> io::Result<()> {
        sync_directory(&self.dir)
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Reads until the buffer is full or the file ends; returns how much it got.
pub(super) fn read_fully(file: &dyn DiskFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(offset + filled as u64, rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads a small file whole.
pub(super) fn read_whole(disk: &dyn Disk, name: &str) -> Result<Vec<u8>, StorageError> {
    let path = disk.path(name);
    let file = disk.open(name).map_err(|error| StorageError::io("open", &path, error))?;
    let read = || {
        // Nothing that is read whole comes near this; a longer file is not one of ours.
        let length = file.length()?.min(1 << 20);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let filled = read_fully(&*file, 0, &mut bytes)?;
        bytes.truncate(filled);
        Ok(bytes)
    };
    read().map_err(|error| StorageError::io("read", &path, error))
}
