//! FastCGI name-value pairs (specification, 3.4): two lengths of one or four bytes, the name, the value. Lengths are
//! never added up and never allocated for: a slice either holds what was declared or the pair is cut off.

/// The pairs in `bytes`, in their order, each with where its name begins; the value is right behind that. The first pair
/// that is cut off ends them with an error.
pub fn pairs(bytes: &[u8]) -> impl Iterator<Item = Result<(usize, &[u8], &[u8]), CutOff>> {
    let mut rest = Some(bytes).filter(|bytes| !bytes.is_empty());
    std::iter::from_fn(move || {
        let Some((name, value, behind)) = first(rest?) else {
            rest = None;
            return Some(Err(CutOff));
        };
        rest = Some(behind).filter(|bytes| !bytes.is_empty());
        let begin = bytes.len() - behind.len() - value.len() - name.len();
        Some(Ok((begin, name, value)))
    })
}

/// A pair whose lengths, name or value do not fit into what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOff;

/// Appends a pair whose name and value are both shorter than 128 bytes.
pub fn push_short(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    debug_assert!(name.len() < 128 && value.len() < 128);
    out.extend([name.len() as u8, value.len() as u8]);
    out.extend(name);
    out.extend(value);
}

fn first(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name_len, bytes) = length(bytes)?;
    let (value_len, bytes) = length(bytes)?;
    let (name, bytes) = bytes.split_at_checked(name_len)?;
    let (value, bytes) = bytes.split_at_checked(value_len)?;
    Some((name, value, bytes))
}

/// One byte below 128, or four bytes of which the first bit is set.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        return Some((usize::from(first), rest));
    }
    let (four, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*four) & 0x7fff_ffff;
    Some((usize::try_from(length).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_one_and_four_byte_lengths_and_what_is_cut_off() {
        let long_value = [b'v'; 128];
        let mut four_bytes = b"\x80\0\0\x01\x80\0\0\x80N".to_vec();
        four_bytes.extend(long_value);
        type Pair<'a> = Result<(usize, &'a [u8], &'a [u8]), CutOff>;
        let table: &[(&[u8], &[Pair])] = &[
            (b"", &[]),
            (b"\0\0", &[Ok((2, b"", b""))]),
            (b"\x01\x02Nvw", &[Ok((2, b"N", b"vw"))]),
            (b"\x01\0N\x01\x01Mv", &[Ok((2, b"N", b"")), Ok((5, b"M", b"v"))]),
            (&four_bytes, &[Ok((8, b"N", &long_value))]),
            // Four bytes for a length that one byte could say are allowed.
            (b"\x80\0\0\x01\x01Nv", &[Ok((5, b"N", b"v"))]),
            (b"\x01", &[Err(CutOff)]),
            (b"\x01\x02", &[Err(CutOff)]),
            (b"\x01\x02N", &[Err(CutOff)]),
            (b"\x01\x02Nv", &[Err(CutOff)]),
            (b"\x80\0\0", &[Err(CutOff)]),
            (b"\x01\x80\0\0", &[Err(CutOff)]),
            (b"\xff\xff\xff\xff\xff\xff\xff\xffNv", &[Err(CutOff)]),
            (b"\x01\x01Nv\x01", &[Ok((2, b"N", b"v")), Err(CutOff)]),
        ];
        for (bytes, expected) in table {
            assert_eq!(pairs(bytes).collect::<Vec<_>>(), *expected, "{bytes:?}");
        }
    }

    #[test]
    fn push_short_writes_what_pairs_reads() {
        let mut bytes = Vec::new();
        push_short(&mut bytes, b"NAME", b"value");
        push_short(&mut bytes, b"", &[b'v'; 127]);
        assert_eq!(
            pairs(&bytes).collect::<Vec<_>>(),
            [Ok((2, &b"NAME"[..], &b"value"[..])), Ok((13, b"", &[b'v'; 127]))]
        );
    }
}
