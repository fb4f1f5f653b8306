//! Values read off arbitrary bytes. When the bytes are used up everything is zero, so that a shorter input means
//! nearly what a longer one does, and mutations stay local.

/// The rest of an input.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        for byte in &mut out {
            *byte = self.byte();
        }
        out
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// A number below `n`, which is at most 256.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    /// One of `items`.
    pub(crate) fn one_of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }

    /// A number that is often close to an edge.
    pub(crate) fn number(&mut self) -> u32 {
        match self.below(8) {
            0 => u32::from(self.byte()),
            1 => u32::from(self.byte()).wrapping_neg(),
            2 => (1 << 31) + u32::from(self.byte()),
            3 => u32::from(self.u16()),
            4 => 1 << (self.byte() & 31),
            _ => self.u32(),
        }
    }

    /// Up to `limit` bytes, as many as a byte says.
    pub(crate) fn bytes(&mut self, limit: usize) -> &'a [u8] {
        let len = usize::from(self.byte()).min(limit);
        self.take(len)
    }

    /// Up to `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        front
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
