//! eBPF instructions as Rust: a program is written line by line, jumps go to labels.
//!
//! Only what the programs here need. The encoding is that of the kernel's
//! `Documentation/bpf/standardization/instruction-set.rst`: eight bytes for an instruction, sixteen for a
//! 64-bit constant.

use std::os::fd::{AsRawFd, BorrowedFd};

/// A register. `R0` holds results, `R1` to `R5` arguments (and are lost in a call), `R6` to `R9` are the
/// program's own, `FP` is the end of its 512 bytes of stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    Fp,
}

/// Size of a memory access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Byte = 0x10,
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// Arithmetic. The 64-bit form; [`Assembler::alu32`] works on the lower half and clears the upper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Add = 0x00,
    Sub = 0x10,
    Mul = 0x20,
    Or = 0x40,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Xor = 0xa0,
    Move = 0xb0,
}

/// What a jump depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum If {
    Equal = 0x10,
    Above = 0x20,
    AnyBitOf = 0x40,
    NotEqual = 0x50,
    SignedGreater = 0x60,
    SignedLess = 0xc0,
}

/// The second operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operand {
    Reg(Reg),
    Imm(i32),
}

impl From<Reg> for Operand {
    fn from(register: Reg) -> Self {
        Operand::Reg(register)
    }
}

impl From<i32> for Operand {
    fn from(value: i32) -> Self {
        Operand::Imm(value)
    }
}

/// A place to jump to, forward only: programs here have no loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// Functions of the kernel, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    MapLookup = 1,
    KtimeNs = 5,
    L4ChecksumReplace = 11,
    Redirect = 23,
    PullData = 39,
    RingOutput = 130,
}

#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const CLASS_LOAD_DOUBLE: u8 = 0x18;
const CLASS_LOAD: u8 = 0x61;
const CLASS_STORE_IMMEDIATE: u8 = 0x62;
const CLASS_STORE: u8 = 0x63;
const CLASS_ALU32: u8 = 0x04;
const CLASS_ALU64: u8 = 0x07;
const CLASS_JUMP: u8 = 0x05;
const CLASS_JUMP32: u8 = 0x06;
const SOURCE_REGISTER: u8 = 0x08;
const JUMP_ALWAYS: u8 = 0x05;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const TO_BIG_ENDIAN: u8 = 0xdc;
/// The immediate of a 64-bit constant is the descriptor of a map.
const PSEUDO_MAP: u8 = 1;
/// ... and stands for the address of the map's first value.
const PSEUDO_MAP_VALUE: u8 = 2;

/// A program under construction.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    instructions: Vec<Instruction>,
    /// Where each label is, once it is.
    labels: Vec<Option<usize>>,
    /// Jumps whose distance is still to be filled in.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A label that is placed later.
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// What follows is where `label` leads.
    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.instructions.len());
    }

    /// `to = *(from + offset)`.
    pub(super) fn load(&mut self, size: Size, to: Reg, from: Reg, offset: usize) {
        self.push(CLASS_LOAD | size as u8, to as u8 | (from as u8) << 4, offset as i16, 0);
    }

    /// `*(to + offset) = value`.
    pub(super) fn store(&mut self, size: Size, to: Reg, offset: i16, value: impl Into<Operand>) {
        match value.into() {
            Operand::Reg(from) => {
                self.push(CLASS_STORE | size as u8, to as u8 | (from as u8) << 4, offset, 0);
            }
            Operand::Imm(value) => {
                self.push(CLASS_STORE_IMMEDIATE | size as u8, to as u8, offset, value);
            }
        }
    }

    /// `to = *(FP + offset)`; `offset` is negative.
    pub(super) fn load_local(&mut self, size: Size, to: Reg, offset: i16) {
        self.push(CLASS_LOAD | size as u8, to as u8 | (Reg::Fp as u8) << 4, offset, 0);
    }

    /// `to = to op value`, 64 bits.
    pub(super) fn alu(&mut self, op: Op, to: Reg, value: impl Into<Operand>) {
        self.arithmetic(CLASS_ALU64, op, to, value.into());
    }

    /// `to = to op value`, the lower 32 bits; the upper become zero.
    pub(super) fn alu32(&mut self, op: Op, to: Reg, value: impl Into<Operand>) {
        self.arithmetic(CLASS_ALU32, op, to, value.into());
    }

    /// `to = value`.
    pub(super) fn mov(&mut self, to: Reg, value: impl Into<Operand>) {
        self.alu(Op::Move, to, value);
    }

    fn arithmetic(&mut self, class: u8, op: Op, to: Reg, value: Operand) {
        match value {
            Operand::Reg(from) => {
                self.push(class | SOURCE_REGISTER | op as u8, to as u8 | (from as u8) << 4, 0, 0)
            }
            Operand::Imm(value) => self.push(class | op as u8, to as u8, 0, value),
        }
    }

    /// Turns the lower `bits` (16 or 32) from network byte order to the machine's or back; clears the rest.
    pub(super) fn swap(&mut self, register: Reg, bits: i32) {
        self.push(TO_BIG_ENDIAN, register as u8, 0, bits);
    }

    /// Jumps if `left condition right`, compared with 64 bits.
    pub(super) fn jump_if(
        &mut self,
        left: Reg,
        condition: If,
        right: impl Into<Operand>,
        label: Label,
    ) {
        self.jump_of(CLASS_JUMP, left, condition, right.into(), label);
    }

    /// Jumps if `left condition right`, compared with 32 bits.
    pub(super) fn jump32_if(
        &mut self,
        left: Reg,
        condition: If,
        right: impl Into<Operand>,
        label: Label,
    ) {
        self.jump_of(CLASS_JUMP32, left, condition, right.into(), label);
    }

    fn jump_of(&mut self, class: u8, left: Reg, condition: If, right: Operand, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        match right {
            Operand::Reg(right) => self.push(
                class | SOURCE_REGISTER | condition as u8,
                left as u8 | (right as u8) << 4,
                0,
                0,
            ),
            Operand::Imm(value) => self.push(class | condition as u8, left as u8, 0, value),
        }
    }

    /// Jumps.
    pub(super) fn jump(&mut self, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.push(JUMP_ALWAYS, 0, 0, 0);
    }

    /// Calls the kernel: arguments in `R1` to `R5`, the result in `R0`.
    pub(super) fn call(&mut self, helper: Helper) {
        self.push(CALL, 0, 0, helper as i32);
    }

    /// Ends the program with what is in `R0`.
    pub(super) fn exit(&mut self) {
        self.push(EXIT, 0, 0, 0);
    }

    /// `to = ` the map.
    pub(super) fn map(&mut self, to: Reg, map: BorrowedFd<'_>) {
        self.constant(to, PSEUDO_MAP, map.as_raw_fd());
    }

    /// `to = ` the address of the first value of an array map.
    pub(super) fn map_value(&mut self, to: Reg, map: BorrowedFd<'_>) {
        self.constant(to, PSEUDO_MAP_VALUE, map.as_raw_fd());
    }

    fn constant(&mut self, to: Reg, kind: u8, low: i32) {
        self.push(CLASS_LOAD_DOUBLE, to as u8 | kind << 4, 0, low);
        self.push(0, 0, 0, 0);
    }

    fn push(&mut self, code: u8, registers: u8, offset: i16, immediate: i32) {
        self.instructions.push(Instruction { code, registers, offset, immediate });
    }

    /// The program, as the kernel takes it.
    ///
    /// # Panics
    /// A label was not placed, or lies too far: a mistake in the program's text.
    pub(super) fn finish(mut self) -> Vec<u8> {
        for (at, label) in std::mem::take(&mut self.jumps) {
            let place = self.labels[label.0].expect("every label is placed");
            let distance = place.checked_sub(at + 1).expect("jumps go forward");
            self.instructions[at].offset = i16::try_from(distance).expect("a short program");
        }
        let encode = |i: &Instruction| {
            let mut bytes = [i.code, i.registers, 0, 0, 0, 0, 0, 0];
            bytes[2..4].copy_from_slice(&i.offset.to_ne_bytes());
            bytes[4..].copy_from_slice(&i.immediate.to_ne_bytes());
            bytes
        };
        self.instructions.iter().flat_map(encode).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_encoded_as_the_kernel_documents_them() {
        let mut a = Assembler::default();
        let out = a.label();
        a.load(Size::Word, Reg::R2, Reg::R1, 16);
        a.jump_if(Reg::R2, If::NotEqual, 8, out);
        a.alu(Op::Add, Reg::R2, Reg::R3);
        a.place(out);
        a.mov(Reg::R0, 0);
        a.exit();
        let expected: [[u8; 8]; 5] = [
            [0x61, 0x12, 16, 0, 0, 0, 0, 0],
            [0x55, 0x02, 1, 0, 8, 0, 0, 0],
            [0x0f, 0x32, 0, 0, 0, 0, 0, 0],
            [0xb7, 0x00, 0, 0, 0, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(a.finish(), expected.concat());
    }
}
