//! Frames on QUIC streams.

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

use super::contain::Held;
use crate::codec::{self, FrameError, Kind};

/// Why a stream gave no further frame.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadFrameError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Stream(#[from] ReadError),
}

/// Cuts a stream into frames.
pub(super) struct FrameReader {
    stream: Held<RecvStream>,
    buffer: BytesMut,
    body_max: usize,
}

impl FrameReader {
    pub(super) fn new(stream: Held<RecvStream>, body_max: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), body_max }
    }

    /// What follows may be this long.
    pub(super) fn set_body_max(&mut self, body_max: usize) {
        self.body_max = body_max;
    }

    /// The next frame of those that have arrived whole.
    pub(super) fn take(&mut self) -> Result<Option<(Kind, BytesMut)>, FrameError> {
        codec::decode_frame(&mut self.buffer, self.body_max)
    }

    /// Waits for more bytes; false at the end of the stream. Loses nothing when it is dropped half-way.
    pub(super) async fn fill(&mut self) -> Result<bool, ReadFrameError> {
        // A large frame leaves a large buffer behind.
        if self.buffer.is_empty() && self.buffer.capacity() > BUFFER_KEPT_MAX {
            self.buffer = BytesMut::new();
        }
        match self.stream.read_chunk(READ_MAX, true).await? {
            Some(chunk) => {
                self.buffer.extend_from_slice(&chunk.bytes);
                Ok(true)
            }
            None if self.buffer.is_empty() => Ok(false),
            None => Err(FrameError::Truncated.into()),
        }
    }

    /// Waits for the next frame; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<(Kind, BytesMut)>, ReadFrameError> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The next bytes, whatever they are: first those that came with the frames before. `None` at
    /// the end of the stream. Loses nothing when it is dropped half-way.
    pub(super) async fn next_bytes(&mut self) -> Result<Option<Bytes>, ReadError> {
        if !self.buffer.is_empty() {
            return Ok(Some(std::mem::take(&mut self.buffer).freeze()));
        }
        Ok(self.stream.read_chunk(READ_MAX, true).await?.map(|chunk| chunk.bytes))
    }

    /// Asks the other side to send no more.
    pub(super) fn stop(&mut self, code: VarInt) {
        // An error says that there is nothing more to come.
        let _ = self.stream.stop(code);
    }

    /// How much memory a frame of `len` bytes would pin if it were kept as it is.
    pub(super) fn backing(&self, len: usize) -> usize {
        self.buffer.capacity().saturating_add(len)
    }
}

/// Gathers frames and hands them to a stream in large pieces.
pub(super) struct FrameWriter {
    stream: Held<SendStream>,
    /// Where small frames are put together.
    pub(super) buffer: BytesMut,
}

impl FrameWriter {
    pub(super) fn new(stream: Held<SendStream>) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// Writes what was gathered, if it is at least this much.
    pub(super) async fn flush_beyond(&mut self, bytes: usize) -> Result<(), WriteError> {
        if self.buffer.is_empty() || self.buffer.len() < bytes {
            return Ok(());
        }
        let gathered = self.buffer.split().freeze();
        self.stream.write_chunk(gathered).await
    }

    /// Writes what was gathered, then a frame that is large enough to go alone.
    pub(super) async fn write(&mut self, frame: Bytes) -> Result<(), WriteError> {
        self.flush_beyond(0).await?;
        self.stream.write_chunk(frame).await
    }

    /// Ends the stream, and waits until the other side has all of it (or is gone).
    pub(super) async fn finish(&mut self) {
        // An error says that the stream is gone already.
        if self.stream.finish().is_ok() {
            let _ = self.stream.stopped().await;
        }
    }
}

/// Bytes taken from quinn at once.
const READ_MAX: usize = 64 << 10;
/// An empty buffer larger than this is given back.
const BUFFER_KEPT_MAX: usize = 256 << 10;
