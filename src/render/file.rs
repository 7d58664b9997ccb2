//! A finished body that is kept for many answers, and which version of it this is: what an ETag says.

use bytes::Bytes;
use ring::digest::{SHA256, digest};

/// Cheap to hand on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub bytes: Bytes,
    pub tag: Tag,
}

impl From<Bytes> for File {
    fn from(bytes: Bytes) -> File {
        File { tag: Tag::of(&bytes), bytes }
    }
}

/// Half of the body's SHA-256 in hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag([u8; 2 * BYTES]);

/// How many bytes of the digest count.
const BYTES: usize = 16;

impl Tag {
    pub fn of(body: &[u8]) -> Tag {
        let mut digits = [0; 2 * BYTES];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(digest(&SHA256, body).as_ref()) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        Tag(digits)
    }

    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("hexadecimal digits are ASCII")
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_first_half_of_the_digest() {
        assert_eq!(Tag::of(b"Away\n").as_str(), "d3b26037202af23b32dfec09641a8d6d");
        assert_eq!(Tag::of(b"").as_str(), "e3b0c44298fc1c149afbf4c8996fb924");
    }
}
