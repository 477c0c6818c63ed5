//! What crosses the wire: a versioned envelope, and `Rpc` inside it as postcard.
//!
//! ```text
//! 0   2  magic       "RF"
//! 2   1  version     1
//! 3   1  kind        1 hello, 2 welcome, 3 rpc, 4 request, 5 answer, 6 failure, 7 snapshot
//! 4   4  length      of the body, little endian
//! 8   4  checksum    CRC32C of bytes 0 to 7 and the body, little endian
//! 12     body
//! ```
//!
//! A snapshot's frame says what it is, how long, and its checksum; its bytes follow as they are, to
//! the end of the stream.
//!
//! A length is believed only up to the limit of its place, before a byte is allocated for it. The
//! checksum finds what TLS cannot: a bug of our own between encoding and decoding.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use raft_core::{Append, Rpc};

/// What a frame's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who dials, and what it speaks.
    Hello = 1,
    /// Who answers, and what will be spoken.
    Welcome = 2,
    /// A message of Raft.
    Rpc = 3,
    /// A client's request: its id, 8 bytes little endian, then opaque bytes.
    Request = 4,
    /// The answer to a request: the same id, then opaque bytes.
    Answer = 5,
    /// A request's end without an answer: the same id, then one byte that says why.
    Failure = 6,
    /// What the rest of the stream is: the bytes of a snapshot.
    Snapshot = 7,
}

/// Why bytes are no frame. Whoever sent them speaks another language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("the frame begins with {0:02x?}, not with 'RF'")]
    Magic([u8; 2]),
    #[error("the frame's envelope has version {0}; this side knows version {VERSION}")]
    Version(u8),
    #[error("the frame's kind {0} is unknown")]
    Kind(u8),
    #[error("a frame of kind {found:?} came where {wanted:?} was due")]
    OutOfPlace { found: Kind, wanted: Kind },
    #[error("the frame announces {len} bytes; at most {max} are allowed here")]
    TooLong { len: usize, max: usize },
    #[error("the frame's checksum is {announced:08x}, but its bytes give {computed:08x}")]
    Checksum { announced: u32, computed: u32 },
    #[error("the body of the {kind:?} frame cannot be decoded")]
    Body { kind: Kind },
    #[error("the stream ended within a frame")]
    Truncated,
}

/// Why something could not be put into a frame: it is larger than its place allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the frame would have more than {max} bytes")]
pub(crate) struct TooLong {
    pub(crate) max: usize,
}

/// Appends a frame whose body is the postcard form of `value`.
pub(crate) fn encode_frame(
    out: &mut BytesMut,
    kind: Kind,
    value: &impl serde::Serialize,
    body_max: usize,
) -> Result<(), TooLong> {
    let start = open_frame(out, kind);
    let sink = Sink { room: body_max, out };
    match postcard::serialize_with_flavor(value, sink) {
        Ok(()) => {
            close_frame(out, start);
            Ok(())
        }
        // The sink refuses what does not fit, and our own types serialize without fail otherwise.
        Err(_) => {
            out.truncate(start);
            Err(TooLong { max: body_max })
        }
    }
}

/// Appends a frame whose body is an id and opaque bytes.
pub(crate) fn encode_exchange(
    out: &mut BytesMut,
    kind: Kind,
    id: u64,
    payload: &[u8],
    payload_max: usize,
) -> Result<(), TooLong> {
    if payload.len() > payload_max {
        return Err(TooLong { max: payload_max });
    }
    let start = open_frame(out, kind);
    out.put_u64_le(id);
    out.put_slice(payload);
    close_frame(out, start);
    Ok(())
}

/// Takes the next frame off the front of `buffer`; `None` if it is not complete yet.
pub(crate) fn decode_frame(buffer: &mut BytesMut, body_max: usize) -> Result<Option<(Kind, BytesMut)>, FrameError> {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    let [m0, m1, version, kind, l0, l1, l2, l3, c0, c1, c2, c3] = *header;
    if [m0, m1] != MAGIC {
        return Err(FrameError::Magic([m0, m1]));
    }
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let kind = Kind::from_byte(kind)?;
    let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if len > body_max {
        return Err(FrameError::TooLong { len, max: body_max });
    }
    if buffer.len() < HEADER.saturating_add(len) {
        return Ok(None);
    }
    let header = buffer.split_to(HEADER);
    let body = buffer.split_to(len);
    let announced = u32::from_le_bytes([c0, c1, c2, c3]);
    let computed = checksum(&header, &body);
    if announced != computed {
        return Err(FrameError::Checksum { announced, computed });
    }
    Ok(Some((kind, body)))
}

/// Reads a body as postcard; bytes that are left over are an error.
pub(crate) fn decode_body<T: serde::de::DeserializeOwned>(kind: Kind, body: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        _ => Err(FrameError::Body { kind }),
    }
}

/// Splits a body into the id of an exchange and what follows.
pub(crate) fn decode_exchange(kind: Kind, mut body: BytesMut) -> Result<(u64, BytesMut), FrameError> {
    let id = body.first_chunk::<EXCHANGE_ID>().map(|id| u64::from_le_bytes(*id));
    let id = id.ok_or(FrameError::Body { kind })?;
    body.advance(EXCHANGE_ID);
    Ok((id, body))
}

/// Detaches bytes from the buffer they arrived in, unless they are most of it (contract R7): a
/// value that is kept for years must not pin the 64 KiB that it came with.
pub(crate) fn detach(bytes: BytesMut, backing: usize) -> Bytes {
    if bytes.len() >= backing / 2 { bytes.freeze() } else { Bytes::copy_from_slice(&bytes) }
}

/// Remembers the last large append that was encoded: a leader often sends the same one to every
/// peer, and it is the same then (`Arc::ptr_eq`) and no other (a `Weak` keeps its address taken).
#[derive(Default)]
pub(crate) struct LastEncoded {
    last: Mutex<Option<(Weak<Append>, Bytes)>>,
}

impl LastEncoded {
    /// The append as a frame of its own.
    pub(crate) fn frame(&self, append: &Arc<Append>, body_max: usize) -> Result<Bytes, TooLong> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = match &*last {
            Some((known, frame)) if std::ptr::eq(known.as_ptr(), Arc::as_ptr(append)) => Some(frame.clone()),
            _ => None,
        };
        let frame = match remembered {
            Some(frame) => frame,
            None => {
                let cost = usize::try_from(append.entries.cost()).unwrap_or(body_max);
                let mut out = BytesMut::with_capacity(cost.min(body_max).saturating_add(HEADER + 64));
                let rpc = Rpc::Append(append.clone());
                encode_frame(&mut out, Kind::Rpc, &rpc, body_max)?;
                out.freeze()
            }
        };
        // The last of the peers to ask: nobody will ask again.
        let wanted = Arc::strong_count(append) > 1;
        *last = wanted.then(|| (Arc::downgrade(append), frame.clone()));
        Ok(frame)
    }
}

impl Kind {
    fn from_byte(byte: u8) -> Result<Self, FrameError> {
        Ok(match byte {
            1 => Self::Hello,
            2 => Self::Welcome,
            3 => Self::Rpc,
            4 => Self::Request,
            5 => Self::Answer,
            6 => Self::Failure,
            7 => Self::Snapshot,
            _ => return Err(FrameError::Kind(byte)),
        })
    }
}

/// Writes the header with what is known before the body; returns where the frame starts.
fn open_frame(out: &mut BytesMut, kind: Kind) -> usize {
    let start = out.len();
    out.put_slice(&MAGIC);
    out.put_u8(VERSION);
    out.put_u8(kind as u8);
    out.put_bytes(0, HEADER - 4);
    start
}

/// Fills in what follows from the body.
fn close_frame(out: &mut BytesMut, start: usize) {
    let Some((header, body)) = out.get_mut(start..).and_then(|frame| frame.split_first_chunk_mut::<HEADER>()) else {
        unreachable!("because the header was written by open_frame")
    };
    let len = u32::try_from(body.len()).expect("because every body has a limit far below 4 GiB");
    if let Some(place) = header.get_mut(4..8) {
        place.copy_from_slice(&len.to_le_bytes());
    }
    let sum = checksum(header, body);
    if let Some(place) = header.get_mut(8..12) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(header.get(..8).unwrap_or_default()), body)
}

/// Where postcard writes to: the end of a buffer, up to a limit.
struct Sink<'a> {
    out: &'a mut BytesMut,
    room: usize,
}

impl postcard::ser_flavors::Flavor for Sink<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.room = self.room.checked_sub(bytes.len()).ok_or(postcard::Error::SerializeBufferFull)?;
        self.out.put_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Bytes of a frame before its body.
pub(crate) const HEADER: usize = 12;
/// Bytes of an exchange's id.
pub(crate) const EXCHANGE_ID: usize = 8;
const MAGIC: [u8; 2] = *b"RF";
const VERSION: u8 = 1;

#[cfg(test)]
mod tests;
