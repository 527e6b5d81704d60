//! The system's files, with the failures that the rules ask for.
//!
//! A spare segment gets its name while it is open: what is done to it before counts as done to a spare.

use super::armed::{self, die, stall};
use super::rules::Action;
use crate::journal::files::{Files, Handle, OsFiles};
use crate::journal::format::{HEADS_TEMP_NAME, Named, SEGMENT_TEMP_NAME, classify};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// What a file is, as far as rules tell files apart.
#[derive(Clone, Debug)]
enum Kind {
    /// A segment, or one to be: it is a segment once the flag is set.
    Segment(Arc<AtomicBool>),
    Heads,
    Witness,
    Other,
}

/// Whatever says what a name does now.
type Strike = Arc<dyn Fn(&str) -> Option<Action> + Send + Sync>;

/// The system's files under rules.
pub(crate) struct Failing {
    strike: Strike,
    /// The spare that is being prepared.
    spare: Mutex<Option<Arc<AtomicBool>>>,
}

impl Failing {
    /// Files under the rules of this process.
    pub(crate) fn new() -> Self {
        Self { strike: Arc::new(armed::strike), spare: Mutex::default() }
    }

    fn kind(&self, path: &Path) -> Kind {
        let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        if name == SEGMENT_TEMP_NAME {
            let flag = Arc::new(AtomicBool::new(false));
            *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&flag));
            return Kind::Segment(flag);
        }
        match classify(&name) {
            Named::Segment(_) => Kind::Segment(Arc::new(AtomicBool::new(true))),
            Named::Heads(_) => Kind::Heads,
            Named::Witness => Kind::Witness,
            _ if name == HEADS_TEMP_NAME => Kind::Heads,
            _ => Kind::Other,
        }
    }

    fn strike(&self, verb: &str, kind: &Kind) -> Option<Action> {
        struck(&self.strike, verb, kind)
    }

    fn wrap(&self, kind: Kind, inner: Arc<dyn Handle>) -> Arc<dyn Handle> {
        Arc::new(FailingHandle { strike: Arc::clone(&self.strike), kind, inner })
    }
}

fn struck(strike: &Strike, verb: &str, kind: &Kind) -> Option<Action> {
    let what = match kind {
        Kind::Segment(named) if named.load(Ordering::SeqCst) => "segment",
        Kind::Segment(_) => "spare",
        Kind::Heads => "heads",
        Kind::Witness => "witness",
        Kind::Other => "other",
    };
    act(strike, &format!("{verb}.{what}"))
}

/// What is left to do after the actions that every operation has alike.
fn act(strike: &Strike, name: &str) -> Option<Action> {
    let action = strike(name)?;
    tracing::error!(name, ?action, "failpoint: fails");
    match action {
        Action::Die => die(name),
        Action::Stall(ms) => {
            stall(ms);
            None
        }
        action => Some(action),
    }
}

/// The error of an action, for an operation that moves no bytes.
fn refuse(action: Option<Action>) -> io::Result<()> {
    match action {
        None | Some(Action::Late(_)) => Ok(()),
        Some(Action::NoSpace) => Err(io::Error::from_raw_os_error(ENOSPC)),
        Some(Action::Torn) => die("torn"),
        Some(_) => Err(io::Error::from_raw_os_error(EIO)),
    }
}

struct FailingHandle {
    strike: Strike,
    kind: Kind,
    inner: Arc<dyn Handle>,
}

impl FailingHandle {
    /// Half of the bytes, so that what follows finds a torn write.
    fn half(&self, buffer: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(&buffer[..buffer.len() / 2], offset).map(drop)
    }
}

impl Handle for FailingHandle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        match struck(&self.strike, "write", &self.kind) {
            Some(Action::Torn) => {
                self.half(buffer, offset)?;
                die("torn write")
            }
            Some(Action::Short) => {
                self.half(buffer, offset)?;
                Err(io::Error::from_raw_os_error(EIO))
            }
            Some(Action::Late(ms)) => {
                later(Late { file: Arc::clone(&self.inner), bytes: buffer.to_vec(), offset, ms });
                Ok(buffer.len())
            }
            action => refuse(action).and_then(|()| self.inner.write_at(buffer, offset)),
        }
    }

    fn sync(&self) -> io::Result<()> {
        refuse(struck(&self.strike, "sync", &self.kind))?;
        self.inner.sync()
    }

    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }
}

impl Files for Failing {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        OsFiles.create_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        OsFiles.list(dir)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn Handle>> {
        let kind = self.kind(path);
        refuse(self.strike("create", &kind))?;
        Ok(self.wrap(kind, OsFiles.create(path)?))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn Handle>> {
        OsFiles.open_read(path)
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn Handle>> {
        Ok(self.wrap(self.kind(path), OsFiles.open_write(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let kind = match self.kind(to) {
            // Its name is what this is about.
            Kind::Segment(_) => Kind::Segment(Arc::new(AtomicBool::new(true))),
            kind => kind,
        };
        refuse(self.strike("rename", &kind))?;
        OsFiles.rename(from, to)?;
        let is_spare = from.file_name().is_some_and(|name| name == SEGMENT_TEMP_NAME);
        if is_spare && let Some(named) = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take() {
            named.store(true, Ordering::SeqCst);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsFiles.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        refuse(act(&self.strike, "sync.directory"))?;
        OsFiles.sync_dir(dir)
    }
}

/// A write that was answered and is still to be done.
struct Late {
    file: Arc<dyn Handle>,
    bytes: Vec<u8>,
    offset: u64,
    ms: u64,
}

/// Writes in the order in which they were answered, each after its delay. What the process still owes when it
/// dies is lost: that is the mistake.
fn later(late: Late) {
    static OWED: OnceLock<Mutex<Sender<Late>>> = OnceLock::new();
    let owed = OWED.get_or_init(|| {
        let (send, receive) = mpsc::channel::<Late>();
        let work = move || {
            for late in receive {
                stall(late.ms);
                if let Err(error) = late.file.write_at(&late.bytes, late.offset) {
                    tracing::error!(%error, "failpoint: a late write failed");
                }
            }
        };
        let thread = std::thread::Builder::new().name("late-writes".to_owned()).spawn(work);
        thread.expect("a test that plants this can have one more thread");
        Mutex::new(send)
    });
    // The thread ends with the process only.
    drop(owed.lock().unwrap_or_else(PoisonError::into_inner).send(late));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failpoints::rules::Rules;

    fn failing(rules: &str) -> Failing {
        let rules = Rules::parse(rules).unwrap();
        Failing { strike: Arc::new(move |name| rules.strike(name)), spare: Mutex::default() }
    }

    #[test]
    fn a_full_disk_takes_nothing_and_an_ill_one_may_take_half() {
        let dir = tempfile::tempdir().unwrap();
        let files = failing("write.segment=enospc@1, write.segment=short@2");
        let path = dir.path().join("00000000000000000001.seg");
        let file = files.create(&path).unwrap();
        let full = file.write_at(b"whole", 0).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        let ill = file.write_at(b"wholeness!", 0).unwrap_err();
        assert_eq!(ill.raw_os_error(), Some(EIO));
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
        assert_eq!(file.write_at(b"wholeness!", 0).unwrap(), 10);
    }

    #[test]
    fn a_spare_is_a_segment_from_the_moment_that_it_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let files = failing("write.segment=eio@1, sync.spare=eio@2");
        let spare = dir.path().join(SEGMENT_TEMP_NAME);
        let file = files.create(&spare).unwrap();
        assert_eq!(file.write_at(b"zeros", 0).unwrap(), 5);
        file.sync().unwrap();
        files.rename(&spare, &dir.path().join("00000000000000000007.seg")).unwrap();
        file.sync().unwrap();
        assert!(file.write_at(b"batch", 0).is_err());
    }

    #[test]
    fn a_late_write_is_answered_before_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("00000000000000000001.seg");
        let file = failing("write.segment=late:50@1").create(&path).unwrap();
        assert_eq!(file.write_at(b"late", 0).unwrap(), 4);
        file.sync().unwrap();
        // It comes all the same; that it is not there at once is what the campaign finds.
        while std::fs::read(&path).unwrap() != b"late" {
            std::thread::yield_now();
        }
    }
}
