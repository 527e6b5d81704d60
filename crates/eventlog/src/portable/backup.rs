//! An online backup: the segments of a journal up to a durable position.
//!
//! ```text
//! <to>/00000000000000000001.seg            a segment that the journal no longer writes
//! <to>/00000000000000004711-00000000000000005000.part   the one it writes, cut at the position
//! <to>/base-00000000000000000100.chk       heads of what was archived, if something was
//! <to>/manifest                            written last: what is not in it is not part of the backup
//! ```
//!
//! Invariants:
//! * the journal is only read, never beyond the position, which its owner says is durable;
//! * the files of the manifest in place are not touched before the next manifest is;
//! * what was archived since an earlier backup stays in the backup: to forget it, back up to another directory;
//! * a file is taken over from the manifest in place only if the journal still names its history (first
//!   position and chain, of it and of the segment behind it) and its bytes are as they were written.

use super::error::Error;
use super::manifest::{Entry, MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest};
use super::place::sync_dir;
use crate::journal::StoreId;
use crate::journal::transfer::{self, CopyStop, Parts, SegmentAt};
use crate::types::Position;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

const TEMP_NAME: &str = "backup.tmp";
/// Tries while the journal's upkeep takes files away under the backup.
const ATTEMPTS: usize = 5;
const COPY_BYTES: usize = 1 << 20;

/// What a backup took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Position the backup reaches.
    pub position: Position,
    /// Segments in it.
    pub segments: u64,
    /// Segments copied; the others were there.
    pub copied: u64,
    /// Bytes copied.
    pub bytes: u64,
}

/// Backs up the journal in `dir` up to `position`, which is durable and the end of a batch, as
/// [`crate::Log::durable`] answers it, into the directory `to`, which is absent, empty or holds an earlier backup
/// of the same store. The journal may be in use. Only one backup may write to `to` at a time.
pub fn backup(dir: &Path, position: Position, to: &Path) -> Result<BackupReport, Error> {
    for _ in 1..ATTEMPTS {
        match attempt(dir, position, to) {
            // A segment was compressed or archived between being listed and being read.
            Err(Error::Io { source, path, .. })
                if source.kind() == std::io::ErrorKind::NotFound && path.starts_with(dir) => {}
            done => return done,
        }
    }
    attempt(dir, position, to)
}

fn attempt(dir: &Path, position: Position, to: &Path) -> Result<BackupReport, Error> {
    let Parts { store, segments, base } = transfer::parts(dir)?;
    std::fs::create_dir_all(to).map_err(Error::io("creating", to))?;
    let before = read_manifest(to)?;
    match &before {
        Some(before) if before.store != store => {
            return Err(Error::OtherStore { path: to.into(), found: before.store, expected: store });
        }
        Some(before) if before.position > position => {
            return Err(Error::OtherHistory { path: to.into(), found: before.position, journal: position });
        }
        Some(_) => {}
        None => refuse_foreign(to)?,
    }
    let job = Job { dir, to, store, position, before: before.as_ref() };
    let mut report = BackupReport { position, ..BackupReport::default() };
    let (base, mut entries) = match job.archived(segments[0]) {
        Some((base, entries)) => (base, entries),
        None => (base.map(|base| job.base(base)).transpose()?, Vec::new()),
    };
    for (index, &segment) in segments.iter().enumerate() {
        // The first segment is in the backup even if it holds nothing yet.
        if segment.first > position && index > 0 {
            break;
        }
        entries.push(job.segment(segment, segments.get(index + 1), &mut report)?);
    }
    let last = entries.last().expect("a journal has a segment");
    if last.last != position {
        return Err(Error::JournalShort { asked: position, found: last.last });
    }
    report.segments = entries.len() as u64;
    let manifest = Manifest { store, position, chain: last.chain, base, segments: entries };
    job.put(MANIFEST_NAME, manifest.encode().as_bytes())?;
    job.remove_surplus(&manifest)?;
    Ok(report)
}

/// The manifest in a backup directory, if there is one.
pub(crate) fn read_manifest(dir: &Path) -> Result<Option<Manifest>, Error> {
    let path = dir.join(MANIFEST_NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("opening", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes).map_err(Error::io("reading", &path))?;
    let text = String::from_utf8(bytes).map_err(|_| Error::Manifest {
        path: path.clone(),
        line: 1,
        detail: "it is no text",
    })?;
    Manifest::decode(&text, &path).map(Some)
}

/// A directory without a manifest may hold what an interrupted first backup left, and nothing else.
fn refuse_foreign(to: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(to).map_err(Error::io("listing", to))? {
        let name = entry.map_err(Error::io("listing", to))?.file_name();
        if !is_ours(&name.to_string_lossy()) {
            return Err(Error::NotEmpty { path: to.into() });
        }
    }
    Ok(())
}

fn is_ours(name: &str) -> bool {
    let is_digits = |text: &str| text.len() == 20 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_part =
        |stem: &str| stem.split_once('-').is_some_and(|(first, last)| is_digits(first) && is_digits(last));
    let is_base = |position: &str| position.strip_suffix(".chk").is_some_and(is_digits);
    name == TEMP_NAME
        || name.strip_prefix("base-").is_some_and(is_base)
        || name.strip_suffix(".seg").is_some_and(is_digits)
        || name.strip_suffix(".part").is_some_and(is_part)
}

struct Job<'a> {
    dir: &'a Path,
    to: &'a Path,
    store: StoreId,
    position: Position,
    before: Option<&'a Manifest>,
}

impl Job<'_> {
    /// What an earlier backup holds from before the journal's oldest segment: it was archived since, and stays
    /// in the backup.
    fn archived(&self, oldest: SegmentAt) -> Option<(Option<Entry>, Vec<Entry>)> {
        let before = self.before?;
        let entries: Vec<Entry> =
            before.segments.iter().take_while(|entry| entry.first < oldest.first).cloned().collect();
        let joins = |last: &Entry| last.last.next() == oldest.first && last.chain == oldest.chain;
        let is_whole = |entry: &Entry| is_as_written(&self.to.join(&entry.name), entry).is_ok();
        let is_kept = entries.last().is_some_and(joins) && before.base.iter().chain(&entries).all(is_whole);
        is_kept.then(|| (before.base.clone(), entries))
    }

    fn segment(
        &self,
        segment: SegmentAt,
        behind: Option<&SegmentAt>,
        report: &mut BackupReport,
    ) -> Result<Entry, Error> {
        let sealed = behind.filter(|behind| behind.first <= self.position.next());
        if let (Some(behind), Some(before)) = (sealed, self.before)
            && let Some(entry) = before.segments.iter().find(|entry| entry.first == segment.first)
            && entry.last.next() == behind.first
            && entry.chain == behind.chain
            && is_as_written(&self.to.join(&entry.name), entry).is_ok()
        {
            return Ok(entry.clone());
        }
        let name = match sealed {
            Some(_) => format!("{:020}.seg", segment.first.get()),
            None => format!("{:020}-{:020}.part", segment.first.get(), self.position.get()),
        };
        let entry = self.copy(segment, name)?;
        if let Some(behind) = sealed
            && (entry.last.next(), entry.chain) != (behind.first, behind.chain)
        {
            let detail = "the segment ends before the next one starts";
            return Err(damaged(segment, entry.bytes, entry.last.next(), detail));
        }
        report.copied += 1;
        report.bytes += entry.bytes;
        Ok(entry)
    }

    fn copy(&self, segment: SegmentAt, name: String) -> Result<Entry, Error> {
        let path = self.to.join(TEMP_NAME);
        let file = File::create(&path).map_err(Error::io("creating", &path))?;
        let mut out = BufWriter::with_capacity(COPY_BYTES, file);
        let (mut bytes, mut crc) = (0, 0);
        let copied = transfer::copy_segment(self.dir, self.store, segment, self.position, |piece| {
            bytes += piece.len() as u64;
            crc = crc32c::crc32c_append(crc, piece);
            out.write_all(piece)
        });
        let copied = copied.map_err(|stop| match stop {
            CopyStop::Read(source) => Error::Io { doing: "reading", path: self.dir.into(), source },
            CopyStop::Write(source) => Error::Io { doing: "writing", path: path.clone(), source },
            CopyStop::Damaged { position, offset, detail } => damaged(segment, offset, position, detail),
        })?;
        let file = out.into_inner().map_err(|error| Error::io("writing", &path)(error.into_error()))?;
        file.sync_all().map_err(Error::io("syncing", &path))?;
        self.name(&name)?;
        Ok(Entry { name, first: segment.first, last: copied.last, bytes, crc, chain: copied.chain })
    }

    /// Copies the heads of what was archived, which carry their own checksum and are compared on restore.
    fn base(&self, position: Position) -> Result<Entry, Error> {
        let name = transfer::base_name(position);
        let path = self.dir.join(&name);
        let bytes = std::fs::read(&path).map_err(Error::io("reading", &path))?;
        self.put(&name, &bytes)?;
        Ok(Entry {
            name,
            first: Position::new(1),
            last: position,
            bytes: bytes.len() as u64,
            crc: crc32c::crc32c(&bytes),
            chain: 0,
        })
    }

    /// Gives the temporary file its name, durably.
    fn name(&self, name: &str) -> Result<(), Error> {
        let path = self.to.join(TEMP_NAME);
        std::fs::rename(&path, self.to.join(name)).map_err(Error::io("renaming", &path))?;
        sync_dir(self.to)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.to.join(TEMP_NAME);
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(Error::io("writing", &path))?;
        self.name(name)
    }

    /// Removes cut segments of earlier backups, which nothing names any more.
    fn remove_surplus(&self, manifest: &Manifest) -> Result<(), Error> {
        let kept: BTreeSet<&str> = manifest.files().map(|entry| entry.name.as_str()).collect();
        for entry in std::fs::read_dir(self.to).map_err(Error::io("listing", self.to))? {
            let name = entry.map_err(Error::io("listing", self.to))?.file_name();
            let name = name.to_string_lossy();
            if is_ours(&name) && !kept.contains(&*name) {
                let path = self.to.join(&*name);
                std::fs::remove_file(&path).map_err(Error::io("removing", &path))?;
            }
        }
        Ok(())
    }
}

fn damaged(segment: SegmentAt, offset: u64, position: Position, detail: &'static str) -> Error {
    let segment = format!("{:020}.seg", segment.first.get());
    Error::SegmentDamaged { segment, offset, position, detail }
}

/// Compares a file with its entry; the error says how it differs.
fn is_as_written(path: &Path, entry: &Entry) -> Result<(), Error> {
    copy_checked(path, entry, &mut std::io::sink())
}

/// Copies a file of a backup, comparing it with its entry.
pub(crate) fn copy_checked(path: &Path, entry: &Entry, out: &mut impl Write) -> Result<(), Error> {
    let damaged = |detail: String| Error::BackupDamaged {
        path: path.into(),
        first: entry.first,
        last: entry.last,
        detail,
    };
    let mut file = File::open(path).map_err(|error| damaged(error.to_string()))?;
    let mut buffer = vec![0u8; COPY_BYTES];
    let (mut bytes, mut crc) = (0u64, 0);
    loop {
        let read = file.read(&mut buffer).map_err(Error::io("reading", path))?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        crc = crc32c::crc32c_append(crc, &buffer[..read]);
        out.write_all(&buffer[..read]).map_err(Error::io("copying", path))?;
    }
    if bytes != entry.bytes {
        return Err(damaged(format!("it has {bytes} bytes instead of {}", entry.bytes)));
    }
    if crc != entry.crc {
        return Err(damaged("its checksum does not match the manifest's".into()));
    }
    Ok(())
}
