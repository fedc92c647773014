//! The beginning of a request, byte by byte: its length, its end, and the preface of HTTP/2.

use super::refusal::Refused;

/// Maximum length of a request head in bytes. Usual ones take a few hundred.
const MAX_HEAD_LEN: usize = 32 * 1024;

/// The first bytes of an HTTP/2 connection (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Progress of a request head. Bytes after its end are not counted, since one read can return a
/// head together with its body.
#[derive(Default)]
pub(super) struct Head {
    /// Bytes read.
    pub(super) len: usize,
    /// Whether a byte other than a line break was read: empty lines may precede a request.
    begun: bool,
    /// Whether the request line is complete.
    has_line: bool,
    /// Whether the current line is empty so far.
    empty_line: bool,
    complete: bool,
}

impl Head {
    /// Returns the head after another one. A part of it may have come in one read with that one, so
    /// its line may be read already.
    pub(super) fn following() -> Self {
        Self {
            has_line: true,
            ..Self::default()
        }
    }

    pub(super) fn read(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.complete {
                return;
            }
            self.len += 1;
            match byte {
                b'\r' => {}
                b'\n' => {
                    self.complete = self.begun && self.empty_line;
                    self.has_line |= self.begun;
                    self.empty_line = true;
                }
                _ => {
                    self.begun = true;
                    self.empty_line = false;
                }
            }
        }
    }

    /// Returns how many bytes may be read, so that no head is complete that is too long; `None` once
    /// it is complete.
    pub(super) fn room(&self) -> Option<usize> {
        (!self.complete).then(|| (MAX_HEAD_LEN + 1).saturating_sub(self.len))
    }

    /// Returns why the head cannot be served, as far as it is read.
    pub(super) fn fault(&self) -> Option<Refused> {
        if self.len <= MAX_HEAD_LEN {
            return None;
        }
        Some(if self.has_line {
            Refused::LongHead
        } else {
            Refused::LongTarget
        })
    }
}

/// The first bytes of a connection, as far as they are the preface of HTTP/2.
#[derive(Default)]
pub(super) struct Preface {
    len: usize,
    differs: bool,
}

impl Preface {
    /// Returns whether all bytes so far, and at least a whole preface, are HTTP/2.
    pub(super) fn read(&mut self, bytes: &[u8]) -> bool {
        if self.differs {
            return false;
        }
        let rest = HTTP2.get(self.len..).unwrap_or_default();
        let len = rest.len().min(bytes.len());
        self.differs = rest[..len] != bytes[..len];
        self.len += len;
        !self.differs && self.len == HTTP2.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line() {
        let counted = |pieces: &[&str]| {
            let mut head = Head::default();
            pieces.iter().for_each(|piece| head.read(piece.as_bytes()));
            (head.len, head.complete)
        };
        assert_eq!(counted(&["GET / HTTP/1.1\r\nx: y\r\n"]), (22, false));
        assert_eq!(counted(&["GET /\r\n\r\nbody\n\n"]), (9, true));
        assert_eq!(counted(&["GET /\r\n", "\r", "\nbody", "more"]), (9, true));
        assert_eq!(counted(&["GET /\n\nbody"]), (7, true));
        // Empty lines before a request do not end its head.
        assert_eq!(counted(&["\r\n\r\n\r\n", "G"]), (7, false));
        assert_eq!(counted(&["\r\n\r\nG\r\n\r\nbody"]), (9, true));
    }

    #[test]
    fn the_preface_is_known_in_pieces_of_any_size() {
        for size in 1..30 {
            let mut preface = Preface::default();
            let bytes = [HTTP2, b"more"].concat();
            assert!(
                bytes.chunks(size).any(|piece| preface.read(piece)),
                "{size}"
            );
        }
        for other in [
            "GET / HTTP/1.1",
            "PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n",
            "P",
            "",
        ] {
            assert!(!Preface::default().read(other.as_bytes()), "{other}");
        }
        let mut late = Preface::default();
        assert!(!late.read(b"\r\n") && !late.read(HTTP2));
    }
}
