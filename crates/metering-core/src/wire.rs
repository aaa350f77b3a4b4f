//! Varints and protobuf fields over borrowed bytes, without allocation.
//!
//! Shape: a [`Reader`] is a slice that shrinks; every read answers `None` at the end or on bytes
//! that are no varint, and the caller names the field. Varints have at most ten bytes and fit 64 bits.

const CONTINUES: u8 = 0x80;
const VARINT_BYTES_MAX: usize = 10;

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

/// The content of a protobuf field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed64(u64),
    Fixed32,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Option<u64> {
        match self.0 {
            [first, rest @ ..] if *first < CONTINUES => {
                self.0 = rest;
                Some(u64::from(*first))
            }
            [first, second, rest @ ..] if *second < CONTINUES => {
                self.0 = rest;
                Some(u64::from(*first & !CONTINUES) | (u64::from(*second) << 7))
            }
            _ => self.long_varint(),
        }
    }

    /// Up to eight bytes without a loop; instants in ms have six.
    #[inline]
    fn long_varint(&mut self) -> Option<u64> {
        const STOPS: u64 = 0x8080_8080_8080_8080;
        let Some(word) = self.0.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)) else {
            return self.varint_by_byte();
        };
        let stops = !word & STOPS;
        if stops == 0 {
            return self.varint_by_byte();
        }
        // All bits up to the first stop, then groups of 7 bits pushed together, two, four and eight at a time.
        let value = word & (stops ^ stops.wrapping_sub(1)) & !STOPS;
        let pairs = value & 0x007f_007f_007f_007f | (value & 0x7f00_7f00_7f00_7f00) >> 1;
        let quads = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
        let whole = quads & 0x0fff_ffff | (quads & 0x0fff_ffff_0000_0000) >> 4;
        let len = usize::try_from(stops.trailing_zeros() >> 3).ok()?.saturating_add(1);
        self.0 = self.0.get(len..)?;
        Some(whole)
    }

    #[inline(never)]
    fn varint_by_byte(&mut self) -> Option<u64> {
        let mut value: u64 = 0;
        let mut shift: u32 = 0;
        for (at, byte) in self.0.iter().enumerate().take(VARINT_BYTES_MAX) {
            let bits = u64::from(*byte & !CONTINUES);
            // The tenth byte holds one bit; more would not fit.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits.checked_shl(shift)?;
            if *byte < CONTINUES {
                self.0 = self.0.get(at.saturating_add(1)..)?;
                return Some(value);
            }
            shift = shift.saturating_add(7);
        }
        None
    }

    #[inline]
    pub(crate) fn varint_u32(&mut self) -> Option<u32> {
        u32::try_from(self.varint()?).ok()
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    /// Bytes with their length before them.
    #[inline]
    pub(crate) fn prefixed(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.varint()?).ok()?;
        self.take(len)
    }

    /// The next protobuf field: its number and content. Groups do not exist in proto3.
    #[inline]
    pub(crate) fn field(&mut self) -> Option<(u32, Field<'a>)> {
        let tag = self.varint_u32()?;
        let number = tag >> 3;
        let field = match tag & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => Field::Bytes(self.prefixed()?),
            5 => self.take(4).map(|_| Field::Fixed32)?,
            _ => return None,
        };
        (number > 0).then_some((number, field))
    }
}

/// How many values a repeated field has in an encoded message, without reading them. `path` leads to it through the fields
/// that hold it; all of them, and its values, are messages. `None` where bytes are no protobuf.
#[must_use]
pub fn count_messages(bytes: &[u8], path: &[u32]) -> Option<usize> {
    let (number, rest) = path.split_first()?;
    let (mut reader, mut count) = (Reader::new(bytes), 0_usize);
    while !reader.is_empty() {
        if let (found, Field::Bytes(inner)) = reader.field()?
            && found == *number
        {
            // A message that comes twice is merged: all of its values count.
            let inside = if rest.is_empty() { 1 } else { count_messages(inner, rest)? };
            count = count.saturating_add(inside);
        }
    }
    Some(count)
}

#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut rest = value;
    while rest >= u64::from(CONTINUES) {
        out.push(rest.to_le_bytes()[0] | CONTINUES);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

pub(crate) fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// A length or count; memory holds less than 2^64 of anything.
pub(crate) fn put_len(out: &mut Vec<u8>, len: usize) {
    put_varint(out, u64::try_from(len).unwrap_or(u64::MAX));
}

pub(crate) fn put_field_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number << 3));
    put_varint(out, value);
}

pub(crate) fn put_field_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number << 3 | 2));
    put_prefixed(out, bytes);
}

/// Signed values with small magnitude as small unsigned ones.
#[inline]
pub(crate) const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// The inverse of [`zigzag`].
#[inline]
pub(crate) const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ (value & 1).cast_signed().wrapping_neg()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn varints_that_do_not_end_or_fit_are_refused() {
        for bytes in [
            &[][..],
            &[0x80],
            &[0xff; 10],
            &[0x80; 11],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert_eq!(Reader::new(bytes).varint(), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn varints_survive(value in any::<u64>(), cut in 0u32..64) {
            let value = value >> cut;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Some(value));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn varints_are_read_alike_whatever_is_behind_them(
            value in any::<u64>(),
            cut in 0u32..64,
            behind in proptest::collection::vec(any::<u8>(), 0..12),
        ) {
            let value = value >> cut;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            bytes.extend_from_slice(&behind);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Some(value));
            prop_assert_eq!(reader.len(), behind.len());
        }

        #[test]
        fn zigzag_survives(value in any::<i64>()) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            while reader.field().is_some() {}
        }
    }
}
