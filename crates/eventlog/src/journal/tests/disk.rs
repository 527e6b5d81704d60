//! A disk in memory that forgets, tears, fills up and fails.
//!
//! Fault model: what was synced stays. Of what was written since, a power cut keeps any subset of 512-byte
//! sectors; of names created or renamed since the directory was synced, all or none. A killed process loses
//! nothing. After a failed sync the system shows what was written and takes it for synced, though it is not: only
//! writing it again gets it to the disk.

use crate::journal::files::{Files, Handle};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
struct Content {
    live: Vec<u8>,
    synced: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Default)]
struct State {
    contents: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    synced_names: BTreeMap<PathBuf, u64>,
    next: u64,
    /// Bytes all files together may have.
    capacity: Option<usize>,
    /// The sync that makes this zero fails, and every one after it.
    syncs_left: Option<u64>,
    /// Most bytes one write takes.
    write_bytes_max: Option<usize>,
    /// Fail every write to a file whose name ends so.
    ill_suffix: Option<&'static str>,
    /// Fail every read of a file whose name ends so.
    unreadable_suffix: Option<&'static str>,
    /// There is no room for writes to a file whose name ends so, as long as there is a ballast.
    full_suffix: Option<&'static str>,
    /// Each directory is a device of its own.
    is_divided: bool,
    /// Refuse everything that writes.
    is_read_only: bool,
    /// Syncs wait until this is taken back.
    is_holding_syncs: bool,
    /// Syncs that wait.
    held: u64,
    syncs: u64,
    writes: u64,
}

#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>, Arc<Condvar>);

struct Open {
    disk: Disk,
    inode: u64,
    path: PathBuf,
}

/// A small generator: what a power cut keeps must be the same for the same seed.
struct Draw(u64);

impl Draw {
    fn flip(&mut self) -> bool {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 62 & 1 == 1
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Loses power: see the fault model. Heals injected faults.
    pub(super) fn power_cut(&self, seed: u64) {
        let mut draw = Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5555);
        let mut state = self.state();
        if draw.flip() {
            state.names = state.synced_names.clone();
        } else {
            state.synced_names = state.names.clone();
        }
        for content in state.contents.values_mut() {
            let mut kept = content.synced.clone();
            for &sector in &content.dirty {
                let (from, to) =
                    (sector * SECTOR_BYTES, ((sector + 1) * SECTOR_BYTES).min(content.live.len()));
                if from < to && draw.flip() {
                    kept.resize(kept.len().max(to), 0);
                    kept[from..to].copy_from_slice(&content.live[from..to]);
                }
            }
            content.live.clone_from(&kept);
            content.synced = kept;
            content.dirty.clear();
        }
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        state.contents.retain(|inode, _| named.contains(inode));
        Self::heal_state(&mut state);
    }

    fn heal_state(state: &mut State) {
        (state.capacity, state.syncs_left, state.write_bytes_max) = (None, None, None);
        (state.ill_suffix, state.unreadable_suffix, state.full_suffix) = (None, None, None);
    }

    pub(super) fn heal(&self) {
        Self::heal_state(&mut self.state());
    }

    /// Leaves room for so many more bytes.
    pub(super) fn fill_up_to(&self, more: usize) {
        let mut state = self.state();
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        let used: usize = named.iter().map(|inode| state.contents[inode].live.len()).sum();
        state.capacity = Some(used + more);
    }

    pub(super) fn fail_sync_after(&self, syncs: u64) {
        self.state().syncs_left = Some(syncs);
    }

    pub(super) fn limit_writes_to(&self, bytes: usize) {
        self.state().write_bytes_max = Some(bytes);
    }

    pub(super) fn fail_writes_to(&self, suffix: &'static str) {
        self.state().ill_suffix = Some(suffix);
    }

    /// As on a file system that copies what it overwrites: no room for that until the ballast is gone.
    pub(super) fn fill_up_for(&self, suffix: &'static str) {
        self.state().full_suffix = Some(suffix);
    }

    /// Makes each directory a device of its own: nothing is renamed from one to another.
    pub(super) fn divide(&self) {
        self.state().is_divided = true;
    }

    pub(super) fn make_read_only(&self) {
        self.state().is_read_only = true;
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.state().is_read_only { Err(io::ErrorKind::ReadOnlyFilesystem.into()) } else { Ok(()) }
    }

    pub(super) fn fail_reads_of(&self, suffix: &'static str) {
        self.state().unreadable_suffix = Some(suffix);
    }

    /// Lets every sync wait until [`Disk::release_syncs`].
    pub(super) fn hold_syncs(&self) {
        self.state().is_holding_syncs = true;
    }

    pub(super) fn release_syncs(&self) {
        self.state().is_holding_syncs = false;
        self.1.notify_all();
    }

    /// Waits until a sync is being held.
    pub(super) fn wait_for_held_sync(&self) {
        drop(self.1.wait_while(self.state(), |state| state.held == 0).unwrap());
    }

    pub(super) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(super) fn writes(&self) -> u64 {
        self.state().writes
    }

    /// A disk with the same contents, to damage.
    pub(super) fn copy(&self) -> Self {
        let state = self.state();
        let copy = State {
            contents: state.contents.clone(),
            names: state.names.clone(),
            synced_names: state.names.clone(),
            next: state.next,
            ..State::default()
        };
        Self(Arc::new(Mutex::new(copy)), Arc::default())
    }

    /// Changes the contents of a file, as rot would.
    pub(super) fn change<T>(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let mut state = self.state();
        let inode = state.names[path];
        let content = state.contents.get_mut(&inode).unwrap();
        let result = change(&mut content.live);
        content.synced.clone_from(&content.live);
        content.dirty.clear();
        result
    }

    /// Name and contents of every file.
    pub(super) fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        state.names.iter().map(|(path, inode)| (path.clone(), state.contents[inode].live.clone())).collect()
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn Handle>> {
        let state = self.state();
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Open { disk: self.clone(), inode, path: path.into() }))
    }
}

fn ill() -> io::Error {
    io::Error::other("injected input/output error")
}

impl Handle for Open {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        if state.unreadable_suffix.is_some_and(|suffix| self.path.to_string_lossy().ends_with(suffix)) {
            return Err(ill());
        }
        let live = &state.contents[&self.inode].live;
        let rest = live.get(offset as usize..).unwrap_or_default();
        let bytes = rest.len().min(buffer.len());
        buffer[..bytes].copy_from_slice(&rest[..bytes]);
        Ok(bytes)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        state.writes += 1;
        if state.ill_suffix.is_some_and(|suffix| self.path.to_string_lossy().ends_with(suffix)) {
            return Err(ill());
        }
        let is_in_the_way = state.names.keys().any(|path| path.ends_with("ballast"));
        if is_in_the_way
            && state.full_suffix.is_some_and(|suffix| self.path.to_string_lossy().ends_with(suffix))
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let named: BTreeSet<u64> = state.names.values().copied().collect();
        let used: usize = named.iter().map(|inode| state.contents[inode].live.len()).sum();
        let room = state.capacity.map_or(usize::MAX, |capacity| capacity.saturating_sub(used));
        let most = state.write_bytes_max.unwrap_or(usize::MAX);
        let content = state.contents.get_mut(&self.inode).unwrap();
        let from = offset as usize;
        let end_max = content.live.len().saturating_add(room);
        let to = (from + buffer.len().min(most)).min(end_max);
        if to <= from {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let length = content.live.len().max(to);
        content.live.resize(length, 0);
        content.live[from..to].copy_from_slice(&buffer[..to - from]);
        content.dirty.extend(from / SECTOR_BYTES..=(to - 1) / SECTOR_BYTES);
        Ok(to - from)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        if state.is_holding_syncs {
            state.held += 1;
            self.disk.1.notify_all();
            state = self.disk.1.wait_while(state, |state| state.is_holding_syncs).unwrap();
            state.held -= 1;
        }
        if let Some(left) = &mut state.syncs_left {
            if *left == 0 {
                state.contents.get_mut(&self.inode).unwrap().dirty.clear();
                return Err(ill());
            }
            *left -= 1;
        }
        state.syncs += 1;
        let content = state.contents.get_mut(&self.inode).unwrap();
        // Only what changed: segments are large and syncs many.
        let Content { live, synced, dirty } = content;
        synced.resize(live.len(), 0);
        for sector in std::mem::take(dirty) {
            let (from, to) = (sector * SECTOR_BYTES, ((sector + 1) * SECTOR_BYTES).min(live.len()));
            synced[from..to].copy_from_slice(&live[from..to]);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().contents[&self.inode].live.len() as u64)
    }
}

impl Files for Disk {
    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn Handle>> {
        self.check_writable()?;
        let mut state = self.state();
        let inode = state.next;
        state.next += 1;
        state.names.insert(path.into(), inode);
        state.contents.insert(inode, Content::default());
        drop(state);
        self.open(path)
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn Handle>> {
        self.open(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn Handle>> {
        self.check_writable()?;
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.state();
        if state.is_divided && from.parent() != to.parent() {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.into(), inode);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check_writable()?;
        self.state().names.remove(path).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.synced_names = state.names.clone();
        Ok(())
    }
}
