//! A disk in memory that forgets in a crash what was not synced, any part of it, and that can be
//! told to lose power, to fail, or to hold on at a sync.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use raft_tokio::storage::{Disk, DiskFile};

const SECTOR: usize = 512;
/// Nothing waits for longer than this: a test that fails must not hang instead.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Default)]
pub(super) struct MemoryDisk {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Change<'a> {
    Link(&'a str, usize),
    Unlink(&'a str),
    Rename(&'a str, &'a str, usize),
}

#[derive(Clone)]
enum Pending {
    Link(String, usize),
    Unlink(String),
    Rename(String, String, usize),
}

#[derive(Default)]
struct State {
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending: Vec<Pending>,
    /// Operations that change something, so far.
    operations: u64,
    power_fails_at: Option<u64>,
    sync_fails: bool,
    write_fails: Option<io::ErrorKind>,
    syncs: u64,
    writes: u64,
    /// Syncs of files whose names begin like this wait.
    held: Option<&'static str>,
    waiting: u64,
}

impl State {
    /// Counts an operation; the one at which the power fails takes effect only in part, later ones not at all.
    fn operation(&mut self) -> io::Result<bool> {
        self.operations += 1;
        match self.power_fails_at {
            Some(at) if self.operations > at => Err(io::Error::other("the power is off")),
            Some(at) => Ok(self.operations == at),
            None => Ok(false),
        }
    }

    fn change(&mut self, change: Change<'_>) -> io::Result<()> {
        let last = self.operation()?;
        match change {
            Change::Link(name, id) => {
                self.names.insert(name.to_owned(), id);
                self.pending.push(Pending::Link(name.to_owned(), id));
            }
            Change::Unlink(name) => {
                self.names.remove(name);
                self.pending.push(Pending::Unlink(name.to_owned()));
            }
            Change::Rename(from, to, id) => {
                self.names.remove(from);
                self.names.insert(to.to_owned(), id);
                self.pending.push(Pending::Rename(from.to_owned(), to.to_owned(), id));
            }
        }
        if last { Err(io::Error::other("the power failed")) } else { Ok(()) }
    }

    fn is_held(&self, file: usize) -> bool {
        self.held.is_some_and(|prefix| self.names.iter().any(|(name, id)| *id == file && name.starts_with(prefix)))
    }

    fn id(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

fn draw(state: &mut u64) -> u64 {
    // SplitMix64.
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// What a crash keeps of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keep {
    Nothing,
    Everything,
    /// Each sector and each change of a name, or not.
    Some(u64),
}

impl Keep {
    fn keeps(&mut self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Some(seed) => draw(seed).is_multiple_of(2),
        }
    }
}

impl MemoryDisk {
    pub(super) fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test panics while it holds the disk")
    }

    /// From now on, the power fails at the operation with this number.
    pub(super) fn fail_power_at(&self, operation: u64) {
        let mut state = self.state();
        state.power_fails_at = Some(state.operations + operation);
    }

    /// Whether the power has failed.
    pub(super) fn is_off(&self) -> bool {
        let state = self.state();
        state.power_fails_at.is_some_and(|at| state.operations >= at)
    }

    pub(super) fn fail_syncs(&self) {
        self.state().sync_fails = true;
    }

    pub(super) fn fail_writes(&self, kind: Option<io::ErrorKind>) {
        self.state().write_fails = kind;
    }

    pub(super) fn heal(&self) {
        let mut state = self.state();
        state.sync_fails = false;
        state.write_fails = None;
    }

    /// Writes and syncs of files, so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state();
        (state.writes, state.syncs)
    }

    /// Makes every sync wait until [`Self::release`].
    pub(super) fn hold(&self) {
        self.hold_files("");
    }

    /// The same, but only syncs of files whose names begin like this.
    pub(super) fn hold_files(&self, prefix: &'static str) {
        self.state().held = Some(prefix);
    }

    /// Waits until a sync is held.
    pub(super) fn await_held(&self) {
        let held = self.shared.changed.wait_timeout_while(self.state(), PATIENCE, |state| state.waiting == 0);
        let (state, waited) = held.expect("no test panics while it holds the disk");
        drop(state);
        assert!(!waited.timed_out(), "nothing was synced");
    }

    pub(super) fn release(&self) {
        self.state().held = None;
        self.shared.changed.notify_all();
    }

    /// The disk after a crash: what was synced, and of the rest what `keep` says.
    pub(super) fn crash(&self, mut keep: Keep) -> Self {
        let state = self.state();
        let mut names = state.durable_names.clone();
        for change in &state.pending {
            if !keep.keeps() {
                continue;
            }
            match change {
                Pending::Link(name, id) => drop(names.insert(name.clone(), *id)),
                Pending::Unlink(name) => drop(names.remove(name)),
                Pending::Rename(from, to, id) => {
                    names.remove(from);
                    names.insert(to.clone(), *id);
                }
            }
        }
        let contents = state.contents.iter().map(|content| survive(content, &mut keep)).collect();
        let after = State { contents, durable_names: names.clone(), names, ..State::default() };
        Self { shared: Arc::new(Shared { state: Mutex::new(after), changed: Condvar::new() }) }
    }

    /// The disk after its process was killed: the page cache lives on, with what was not synced.
    pub(super) fn kill(&self) -> Self {
        let state = self.state();
        let after = State {
            contents: state.contents.clone(),
            names: state.names.clone(),
            durable_names: state.durable_names.clone(),
            pending: state.pending.clone(),
            ..State::default()
        };
        Self { shared: Arc::new(Shared { state: Mutex::new(after), changed: Condvar::new() }) }
    }

    pub(super) fn file_names(&self) -> Vec<String> {
        self.state().names.keys().cloned().collect()
    }

    /// The content of a file.
    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        let id = state.id(name).expect("the test knows its files");
        state.contents[id].now.clone()
    }

    /// A copy of this disk in which one file is changed behind everybody's back.
    pub(super) fn tampered(&self, name: &str, tamper: impl FnOnce(&mut Vec<u8>)) -> Self {
        let copy = self.crash(Keep::Everything);
        let mut state = copy.state();
        let id = state.id(name).expect("the test knows its files");
        tamper(&mut state.contents[id].now);
        state.contents[id].durable = state.contents[id].now.clone();
        drop(state);
        copy
    }

    /// Changes a file that is open.
    pub(super) fn rot(&self, name: &str, rot: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let id = state.id(name).expect("the test knows its files");
        rot(&mut state.contents[id].now);
    }

    /// A copy of this disk without one file.
    pub(super) fn without(&self, name: &str) -> Self {
        let copy = self.crash(Keep::Everything);
        copy.remove(name).expect("the test knows its files");
        copy
    }
}

fn survive(content: &Content, keep: &mut Keep) -> Content {
    let Content { now, durable } = content;
    if now == durable {
        return content.clone();
    }
    let length = if now.len() != durable.len() && keep.keeps() { now.len() } else { durable.len() };
    let mut after = durable.clone();
    after.resize(length, 0);
    for (nth, sector) in after.chunks_mut(SECTOR).enumerate() {
        let start = nth * SECTOR;
        let end = start + sector.len();
        if let Some(new) = now.get(start..end)
            && new != sector
            && keep.keeps()
        {
            sector.copy_from_slice(new);
        }
    }
    Content { now: after.clone(), durable: after }
}

struct MemoryFile {
    disk: MemoryDisk,
    id: usize,
}

impl Disk for MemoryDisk {
    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("memory").join(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.file_names())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        let id = state.contents.len();
        state.contents.push(Content::default());
        state.change(Change::Link(name, id))?;
        drop(state);
        Ok(Arc::new(MemoryFile { disk: self.clone(), id }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let id = self.state().id(name)?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let id = state.id(from)?;
        state.change(Change::Rename(from, to, id))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.id(name)?;
        state.change(Change::Unlink(name))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        if state.operation()? {
            return Err(io::Error::other("the power failed"));
        }
        state.pending.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().contents[self.id].now.len() as u64)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        let bytes = state.contents[self.id].now.get(offset as usize..).unwrap_or_default();
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let last = state.operation()?;
        state.writes += 1;
        if let Some(kind) = state.write_fails {
            return Err(kind.into());
        }
        let content = &mut state.contents[self.id].now;
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(bytes);
        if last { Err(io::Error::other("the power failed")) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.operation()? {
            return Err(io::Error::other("the power failed"));
        }
        state.syncs += 1;
        if state.is_held(self.id) {
            state.waiting += 1;
            self.disk.shared.changed.notify_all();
            let held = self.disk.shared.changed.wait_timeout_while(state, PATIENCE, |state| state.is_held(self.id));
            let waited;
            (state, waited) = held.expect("no test panics while it holds the disk");
            state.waiting -= 1;
            if waited.timed_out() {
                return Err(io::Error::other("the test that held this sync is gone"));
            }
        }
        if state.sync_fails {
            return Err(io::Error::other("the device is gone"));
        }
        let content = &mut state.contents[self.id];
        content.durable = content.now.clone();
        Ok(())
    }
}
