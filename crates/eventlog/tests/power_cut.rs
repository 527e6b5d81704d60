//! Power cuts and kills: a writer in a process of its own tells which appends were acknowledged, its disk is
//! taken away at a seeded moment, and every acknowledged record has to be there.
//!
//! A power cut is simulated below the file system: the journal lies on ext4 on a loop device, the writer is
//! stopped, and the device's image is copied as it is. What was only in the page cache of that file system is
//! not in the copy. The copy is mounted, which recovers ext4, and the journal is opened.
//!
//! Five cuts; `MUSHER_POWER_CUTS=50` makes more. Needs root, loop devices and `mkfs.ext4`; where they are
//! missing the test says so and passes.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail it")]

use bytes::Bytes;
use eventlog::{
    Append, AppendContext, AppendOutcome, Cause, CodecId, Journal, JournalConfig, JournalReader, Log,
    NewEvent, Position, Record, StoreId, StreamId, StreamKind,
};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;

const WRITER_TEST: &str = "a_writer_acknowledges_what_can_be_read_back";
const WRITER_DIR: &str = "MUSHER_POWER_CUT_WRITER";
const WRITERS: u8 = 8;
const IMAGE_BYTES: u64 = 160 << 20;
/// Acknowledgements after which the disk is taken away: at least one, at most this many.
const ACKNOWLEDGED_MAX: u64 = 1_200;
const KILLS: u64 = 20;
/// Readings of the image until two in a row agree.
const COPIES_MAX: usize = 200;

/// Small segments, and heads and witness often, so that cuts fall into all of their writes.
fn config() -> JournalConfig {
    JournalConfig {
        segment_bytes: 256 << 10,
        heads_every_bytes: 128 << 10,
        witness_every_ms: 10,
        ..JournalConfig::new(StoreId([0x70; 16]))
    }
}

fn stream(number: u8) -> StreamId {
    StreamId::new(StreamKind(1), [number; 16])
}

/// What the stream's record of this version holds: its length and its bytes tell it from every other.
fn payload(stream: StreamId, version: u64) -> Bytes {
    let seed = u64::from(stream.id[0]) << 32 | version;
    let bytes = 8 + seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % 900;
    seed.to_le_bytes().iter().copied().cycle().take(bytes).collect()
}

/// Position of every acknowledged record with its stream and version.
type Acknowledged = BTreeMap<u64, (u8, u64)>;

// ---- the writer's process ----

/// Appends to one stream, one event at a time, and tells of each once it is acknowledged.
async fn append_on(log: Arc<Journal>, number: u8, count: u64, told: Arc<dyn Fn(&str) + Send + Sync>) {
    let stream = stream(number);
    let claim = log.claim(stream).await.unwrap();
    let mut expected = claim.head.version;
    for _ in 0..count {
        let event = NewEvent {
            kind: 1,
            schema: 1,
            codec: CodecId(1),
            time_us: expected.get(),
            cause: Cause::None,
            payload: payload(stream, expected.next().get()),
        };
        let context = AppendContext { actor: Bytes::from_static(b"writer"), ..AppendContext::default() };
        let append = Append { stream, epoch: claim.epoch, expected, events: vec![event], context };
        match log.append(append).await {
            AppendOutcome::Appended { first, version, .. } => {
                told(&format!("{first} {number} {version}\n"));
                expected = version;
            }
            other => panic!("an append was not accepted: {other:?}"),
        }
    }
}

fn write(dir: &Path, count: u64, told: Arc<dyn Fn(&str) + Send + Sync>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let log = Arc::new(Journal::open(dir, config()).unwrap().0);
    runtime.block_on(async {
        // As a daemon does it: one of the callers' tasks tells the others.
        tokio::spawn(log.herald());
        let tasks: Vec<_> = (1..=WRITERS)
            .map(|number| tokio::spawn(append_on(log.clone(), number, count, told.clone())))
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

/// By itself a test of the writer; started by the others with a directory, it is the writer and never ends.
#[test]
fn a_writer_acknowledges_what_can_be_read_back() {
    if let Some(dir) = std::env::var_os(WRITER_DIR) {
        // One write for each line, past the test harness, so that a line is told whole or not at all.
        let told = |line: &str| std::io::stderr().write_all(line.as_bytes()).unwrap();
        write(Path::new(&dir), u64::MAX, Arc::new(told));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (lines, inbox) = std::sync::mpsc::channel();
    write(dir.path(), 5, Arc::new(move |line| lines.send(line.to_owned()).unwrap()));
    let mut acknowledged = Acknowledged::new();
    for line in inbox.try_iter() {
        note(&line, &mut acknowledged);
    }
    assert_eq!(acknowledged.len(), usize::from(WRITERS) * 5);
    check(dir.path(), &acknowledged);
}

// ---- its parent ----

/// A running writer; killed when dropped.
struct Writer {
    process: Child,
    told: BufReader<ChildStderr>,
}

impl Writer {
    fn start(dir: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", WRITER_TEST, "--nocapture"])
            .env(WRITER_DIR, dir)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let told = BufReader::new(process.stderr.take().unwrap());
        Self { process, told }
    }

    /// Reads acknowledgements until there are `count` more, or the writer is gone.
    fn read(&mut self, count: u64, acknowledged: &mut Acknowledged) {
        let mut line = String::new();
        for read in 0..count {
            line.clear();
            if self.told.read_line(&mut line).unwrap() == 0 {
                assert_eq!(count, u64::MAX, "the writer ended by itself after {read} acknowledgements");
                return;
            }
            note(&line, acknowledged);
        }
    }

    fn stop(&self) {
        let stopped = Command::new("kill").args(["-STOP", &self.process.id().to_string()]).status().unwrap();
        assert!(stopped.success());
    }

    /// Kills the process and reads what it told before.
    fn kill(mut self, acknowledged: &mut Acknowledged) {
        self.process.kill().unwrap();
        self.read(u64::MAX, acknowledged);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // It may have been killed and waited for; then there is nothing to do.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn note(line: &str, acknowledged: &mut Acknowledged) {
    let numbers: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let [position, stream, version] = numbers[..] else { panic!("the writer says: {line}") };
    let before = acknowledged.insert(position, (stream as u8, version));
    assert_eq!(before, None, "position {position} was acknowledged twice");
}

/// Opens the journal and compares it with what was acknowledged; answers how many records more there are.
fn check(dir: &Path, acknowledged: &Acknowledged) -> u64 {
    let (journal, _) = Journal::open(dir, config()).unwrap();
    let mut left = acknowledged.clone();
    let mut next = Position::new(1);
    loop {
        let records: Vec<Record> = journal.read_all(next, 256).unwrap();
        let Some(last) = records.last() else { break };
        next = last.position.next();
        for record in &records {
            let version = record.version.get();
            assert_eq!(record.payload, payload(record.stream, version), "position {}", record.position);
            if let Some(told) = left.remove(&record.position.get()) {
                assert_eq!((record.stream.id[0], version), told, "position {}", record.position);
            }
        }
    }
    assert!(
        left.is_empty(),
        "{} acknowledged records are lost, the first is {:?}",
        left.len(),
        left.first_key_value()
    );
    drop(journal);
    assert_eq!(JournalReader::verify_dir(dir).unwrap().problem, None);
    next.get() - 1 - acknowledged.len() as u64
}

/// The moment of cut or kill number `number`.
fn moment(number: u64) -> u64 {
    let mut word = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    1 + (word ^ (word >> 31)) % ACKNOWLEDGED_MAX
}

#[test]
fn nothing_acknowledged_is_lost_to_twenty_kills() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let mut acknowledged = Acknowledged::new();
    for number in 0..KILLS {
        let mut writer = Writer::start(&journal);
        writer.read(moment(number) / 4 + 1, &mut acknowledged);
        writer.kill(&mut acknowledged);
        check(&journal, &acknowledged);
    }
}

// ---- the disk ----

/// A mounted image; unmounted when dropped, whatever happens.
struct Mounted {
    point: PathBuf,
}

impl Mounted {
    fn mount(image: &Path, point: PathBuf) -> Result<Self, String> {
        std::fs::create_dir_all(&point).unwrap();
        run("mount", &["-o", "loop", &image.to_string_lossy(), &point.to_string_lossy()])?;
        Ok(Self { point })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let point = self.point.to_string_lossy();
        if run("umount", &[&point]).is_err() {
            // A process that still holds it, such as one of a failed test, lets go of it later.
            run("umount", &["-l", &point]).unwrap_or_else(|error| eprintln!("{error}"));
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// An image with ext4 in it, mounted; or why this machine does not allow it.
fn disk(dir: &Path) -> Result<(PathBuf, Mounted), String> {
    let image = dir.join("image");
    std::fs::File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
    run("mkfs.ext4", &["-q", "-F", &image.to_string_lossy()])?;
    let mounted = Mounted::mount(&image, dir.join("disk"))?;
    Ok((image, mounted))
}

fn image_bytes(image: &Path) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(IMAGE_BYTES as usize);
    std::fs::File::open(image).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// The image at one moment. The kernel may finish a sync for the stopped writer, or write something back, while
/// it is read; two equal readings are what the device held between them.
fn cut(image: &Path) -> Vec<u8> {
    let mut before = image_bytes(image);
    for _ in 0..COPIES_MAX {
        let after = image_bytes(image);
        if before == after {
            return after;
        }
        before = after;
    }
    panic!("the image of a stopped writer never rests");
}

#[test]
fn nothing_acknowledged_is_lost_to_a_power_cut() {
    let dir = tempfile::tempdir().unwrap();
    let (image, disk) = match disk(dir.path()) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("skipped: power cuts need root, loop devices and mkfs.ext4 ({why})");
            return;
        }
    };
    let cuts = std::env::var("MUSHER_POWER_CUTS").map_or(5, |text| text.parse().expect("a number of cuts"));
    let mut acknowledged = Acknowledged::new();
    let (mut more, mut torn) = (0, 0);
    for number in 0..cuts {
        let mut writer = Writer::start(&disk.point.join("journal"));
        writer.read(moment(number), &mut acknowledged);
        writer.stop();
        let copy = dir.path().join("copy");
        std::fs::write(&copy, cut(&image)).unwrap();
        writer.kill(&mut acknowledged);
        let survivor = Mounted::mount(&copy, dir.path().join("survivor")).unwrap();
        let journal = survivor.point.join("journal");
        torn += u64::from(JournalReader::verify_dir(&journal).unwrap().torn.is_some());
        more += check(&journal, &acknowledged);
        drop(survivor);
        std::fs::remove_file(copy).unwrap();
    }
    let records = acknowledged.len();
    eprintln!(
        "{cuts} power cuts: {records} acknowledged records, 0 lost; {torn} torn tails, {more} unanswered records kept"
    );
}
