//! A checkpoint's bytes.
//!
//! ```text
//! header  0 magic 8 | 8 format u32 | 12 fold version u32 | 16 model version u32 | 20 shared version u32
//!         24 store id 16 | 40 position u64 | 48 anchor u32 | 52 zeros | 60 crc32c u32           (64 bytes)
//! frame   kind u8 | length u32 | crc32c of kind, length and body u32 | body, at most 1 MiB      (repeated)
//! ```
//!
//! Frames of one kind, one after the other, are a section: 1 what instances share (ledger, then network book), 2 the
//! read model's rows (each: length of key u16, length of value u32, key, value), 3 the end: how many frames came
//! before. All numbers are little-endian.
//!
//! Invariants:
//! * nothing is decoded before the checksum of its frame has been compared;
//! * a file that ends anywhere but behind its end frame is none;
//! * beyond the state itself, writing and reading take the memory of a few frames.

use crate::error::Unusable;
use crate::state::State;
use eventlog::{Position, StoreId};
use journal::{FOLD_VERSION, read_disposable, write_disposable};
use lifecycle::Ledger;
use lifecycle::network::NetworkBook;
use projections::{Loading, MODEL_VERSION, ReadModel, model_rows};
use std::io::{self, Read, Write};

const MAGIC: [u8; 8] = *b"MUSHCKP\n";
/// Version of the file's layout.
const FORMAT: u32 = 1;
/// Version of what instances share: of the layouts of ledger and network book, and of what they make of the
/// same events. Rises with either.
pub const SHARED_VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const FRAME_HEADER_BYTES: usize = 9;
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Frames are closed at this size: small enough to stay in a processor's cache.
const FRAME_BYTES: usize = 256 << 10;
/// Most bytes of one row: far above what the read model makes of one entity.
const ROW_BYTES_MAX: usize = 1 << 20;

const SHARED: u8 = 1;
const ROWS: u8 = 2;
const END: u8 = 3;

/// Writes a state; answers how many bytes that took.
pub fn write(state: &State, store: StoreId, to: &mut impl Write) -> io::Result<u64> {
    to.write_all(&header(state, store))?;
    let mut frames = Frames { to, body: Vec::with_capacity(FRAME_BYTES), kind: SHARED, count: 0, bytes: 0 };
    let malformed = |error: journal::SnapshotError| io::Error::other(error.to_string());
    write_disposable(&state.ledger, &mut frames).map_err(malformed)?;
    write_disposable(&state.book, &mut frames).map_err(malformed)?;
    frames.begin(ROWS)?;
    for (key, value) in model_rows(&state.model) {
        let length = u16::try_from(key.len()).map_err(|_| io::Error::other("a row's key is too long"))?;
        if value.len() > ROW_BYTES_MAX {
            return Err(io::Error::other("a row is too long"));
        }
        frames.write_all(&length.to_le_bytes())?;
        frames.write_all(&(value.len() as u32).to_le_bytes())?;
        frames.write_all(&key)?;
        frames.write_all(&value)?;
    }
    frames.begin(END)?;
    let count = frames.count;
    frames.write_all(&count.to_le_bytes())?;
    frames.close()?;
    Ok(frames.bytes + HEADER_BYTES as u64)
}

fn header(state: &State, store: StoreId) -> [u8; HEADER_BYTES] {
    let mut bytes = [0u8; HEADER_BYTES];
    bytes[0..8].copy_from_slice(&MAGIC);
    for (at, version) in [(8, FORMAT), (12, FOLD_VERSION), (16, MODEL_VERSION), (20, SHARED_VERSION)] {
        bytes[at..at + 4].copy_from_slice(&version.to_le_bytes());
    }
    bytes[24..40].copy_from_slice(&store.0);
    bytes[40..48].copy_from_slice(&state.position.get().to_le_bytes());
    bytes[48..52].copy_from_slice(&state.anchor.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads a state back. Nothing but the file itself is asked: whether it is of this log's past is another question.
pub fn read(store: StoreId, from: impl Read) -> Result<State, Unusable> {
    let mut from = from;
    let mut bytes = [0u8; HEADER_BYTES];
    fill(&mut from, &mut bytes)?;
    let (position, anchor) = read_header(&bytes, store)?;
    let mut frames = Reader { from, body: Vec::new(), at: 0, kind: 0, count: 0 };
    frames.next_frame()?;
    let mut shared = frames.section(SHARED)?;
    let ledger: Ledger = read_disposable(&mut shared).map_err(damaged)?;
    let book: NetworkBook = read_disposable(&mut shared).map_err(damaged)?;
    shared.must_be_over()?;
    let model = read_rows(&mut frames, position)?;
    let count = frames.count - 1;
    let mut end = frames.section(END)?;
    let mut counted = [0u8; 8];
    end.read_exact(&mut counted).map_err(|error| Unusable::Damaged(error.to_string()))?;
    if u64::from_le_bytes(counted) != count || frames.at != frames.body.len() {
        return Err(Unusable::Damaged("frames are missing".to_owned()));
    }
    if frames.from.read(&mut [0u8])? > 0 {
        return Err(Unusable::Damaged("bytes follow its end".to_owned()));
    }
    Ok(State { position, anchor, ledger, book, model })
}

/// The position that a checkpoint of this store says was durable when it was made, by whatever build: its header
/// tells that much of one whose contents this build cannot use. None if it is not one.
pub(crate) fn testimony(store: StoreId, mut from: impl Read) -> io::Result<Option<Position>> {
    let mut bytes = [0u8; HEADER_BYTES];
    match fill(&mut from, &mut bytes) {
        Ok(()) => {}
        Err(Unusable::Io(error)) => return Err(error),
        Err(_) => return Ok(None),
    }
    Ok(match read_header(&bytes, store) {
        Ok((position, _)) => Some(position),
        // In a layout that is not ours the position may be anywhere.
        Err(Unusable::OtherBuild(_)) if bytes[8..12] == FORMAT.to_le_bytes() => Some(position_in(&bytes)),
        Err(_) => None,
    })
}

fn position_in(bytes: &[u8; HEADER_BYTES]) -> Position {
    Position::new((0..8).fold(0u64, |sum, n| sum | u64::from(bytes[40 + n]) << (8 * n)))
}

fn read_header(bytes: &[u8; HEADER_BYTES], store: StoreId) -> Result<(Position, u32), Unusable> {
    let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    if bytes[0..8] != MAGIC || number(60) != crc32c::crc32c(&bytes[..60]) {
        return Err(Unusable::Damaged("its header is not one of a checkpoint".to_owned()));
    }
    if number(8) != FORMAT {
        let found = number(8);
        return Err(Unusable::OtherBuild(format!("its layout is {found}, this build's is {FORMAT}")));
    }
    if bytes[24..40] != store.0 {
        return Err(Unusable::OtherStore);
    }
    let found = [number(12), number(16), number(20)];
    let ours = [FOLD_VERSION, MODEL_VERSION, SHARED_VERSION];
    if found != ours {
        return Err(Unusable::OtherBuild(format!("its versions are {found:?}, this build's are {ours:?}")));
    }
    Ok((position_in(bytes), number(48)))
}

fn read_rows<R: Read>(frames: &mut Reader<R>, position: Position) -> Result<ReadModel, Unusable> {
    let wrong = |error: projections::RowError| Unusable::Damaged(error.to_string());
    let mut rows = frames.section(ROWS)?;
    let (mut loading, mut key, mut value) = (Loading::new(), Vec::new(), Vec::new());
    while !rows.is_over()? {
        let (mut key_bytes, mut value_bytes) = ([0u8; 2], [0u8; 4]);
        rows.read_exact(&mut key_bytes)?;
        rows.read_exact(&mut value_bytes)?;
        let value_bytes = u32::from_le_bytes(value_bytes) as usize;
        if value_bytes > ROW_BYTES_MAX {
            return Err(Unusable::Damaged("a row is too long".to_owned()));
        }
        key.resize(usize::from(u16::from_le_bytes(key_bytes)), 0);
        value.resize(value_bytes, 0);
        rows.read_exact(&mut key)?;
        rows.read_exact(&mut value)?;
        loading.take(&key, &value).map_err(wrong)?;
    }
    loading.finish(position.get()).map_err(wrong)
}

fn damaged(error: journal::SnapshotError) -> Unusable {
    Unusable::Damaged(error.to_string())
}

/// Fills a buffer; a file that ends before is damaged.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> Result<(), Unusable> {
    from.read_exact(buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Unusable::Damaged("it is cut off".to_owned()),
        _ => Unusable::Io(error),
    })
}

fn frame_header(kind: u8, body: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
    let mut header = [0u8; FRAME_HEADER_BYTES];
    header[0] = kind;
    header[1..5].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..5]), body);
    header[5..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Cuts what is written into frames.
struct Frames<'a, W> {
    to: &'a mut W,
    body: Vec<u8>,
    kind: u8,
    count: u64,
    bytes: u64,
}

impl<W: Write> Frames<'_, W> {
    fn begin(&mut self, kind: u8) -> io::Result<()> {
        self.close()?;
        self.kind = kind;
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        if self.body.is_empty() {
            return Ok(());
        }
        self.to.write_all(&frame_header(self.kind, &self.body))?;
        self.to.write_all(&self.body)?;
        self.bytes += (FRAME_HEADER_BYTES + self.body.len()) as u64;
        self.count += 1;
        self.body.clear();
        Ok(())
    }
}

impl<W: Write> Write for Frames<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(FRAME_BYTES - self.body.len());
        self.body.extend_from_slice(&bytes[..taken]);
        if self.body.len() == FRAME_BYTES {
            self.close()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Hands out frames whose checksums hold.
struct Reader<R> {
    from: R,
    body: Vec<u8>,
    at: usize,
    kind: u8,
    count: u64,
}

impl<R: Read> Reader<R> {
    fn next_frame(&mut self) -> Result<(), Unusable> {
        let mut header = [0u8; FRAME_HEADER_BYTES];
        fill(&mut self.from, &mut header)?;
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length == 0 || length > FRAME_BYTES_MAX {
            return Err(Unusable::Damaged("the length of a frame cannot be".to_owned()));
        }
        self.body.resize(length, 0);
        fill(&mut self.from, &mut self.body)?;
        if frame_header(header[0], &self.body) != header {
            return Err(Unusable::Damaged("the checksum of a frame does not hold".to_owned()));
        }
        (self.kind, self.at) = (header[0], 0);
        self.count += 1;
        Ok(())
    }

    fn section(&mut self, kind: u8) -> Result<Section<'_, R>, Unusable> {
        if self.kind == kind && self.at == 0 {
            return Ok(Section { frames: self, kind });
        }
        Err(Unusable::Damaged("its sections are not in order".to_owned()))
    }
}

/// The bytes of one section.
struct Section<'a, R> {
    frames: &'a mut Reader<R>,
    kind: u8,
}

impl<R: Read> Section<'_, R> {
    /// Whether all of it has been read; the next frame, if there must be one, is of another section.
    fn is_over(&mut self) -> Result<bool, Unusable> {
        if self.frames.kind == self.kind && self.frames.at == self.frames.body.len() && self.kind != END {
            self.frames.next_frame()?;
        }
        Ok(self.frames.kind != self.kind || self.frames.at == self.frames.body.len())
    }

    fn must_be_over(&mut self) -> Result<(), Unusable> {
        if self.is_over()? {
            return Ok(());
        }
        Err(Unusable::Damaged("bytes follow the end of a section".to_owned()))
    }
}

impl<R: Read> Read for Section<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            return Ok(0);
        }
        let rest = &self.frames.body[self.frames.at..];
        let taken = buffer.len().min(rest.len());
        buffer[..taken].copy_from_slice(&rest[..taken]);
        self.frames.at += taken;
        Ok(taken)
    }
}
