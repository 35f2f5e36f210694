//! Pickles as data: protocols 0 to 5, nothing executed.
//!
//! A pickle is a program for a small stack machine
//! (<https://github.com/python/cpython/blob/main/Lib/pickletools.py> documents every opcode). Python's machine imports
//! classes and calls them; this one only notes which class would be called with which arguments. Values live in an arena
//! and refer to each other by index, so that shared values are stored once and cycles are harmless. The numbers of
//! operations and values are bounded, and lengths are checked against the input before anything is allocated.
//! Persistent ids, extension codes and out-of-band buffers are refused.

use std::collections::HashMap;

use crate::{Error, Result};

/// Most operations, and most values, of a pickle.
const LIMIT: usize = 400_000;
/// A long pickle that has to be long may have a value for so many of its bytes.
const BYTES_PER_VALUE: usize = 4;
/// Most bytes of the name of a module or a class.
const NAME_LIMIT: usize = 255;
/// Most bytes of all of them. One name may be repeated by an operation of one byte, and is copied each time.
const NAMES_LIMIT: usize = 4 << 20;

/// The place of a value in [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Id(u32);

/// A value of a pickle.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    /// `None`
    None,
    /// A bool.
    Bool(bool),
    /// An int of up to 64 bits.
    Int(i64),
    /// A longer int: little-endian two's complement.
    Long(Vec<u8>),
    /// A float.
    Float(f64),
    /// Text. The byte strings of Python 2 are text where they are UTF-8.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list, in order.
    List(Vec<Id>),
    /// A tuple.
    Tuple(Vec<Id>),
    /// A set or frozenset.
    Set(Vec<Id>),
    /// A dict, in order.
    Dict(Vec<(Id, Id)>),
    /// The name of a class or function: module, then name. It is not imported.
    Global(String, String),
    /// An object as Python would have made it.
    Object(Object),
}

/// What Python would have called, and what it would have done to the result.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// A [`Node::Global`] in every pickle of an honest writer.
    pub class: Id,
    /// A [`Node::Tuple`] likewise.
    pub arguments: Id,
    /// What `__setstate__` would have been given.
    pub state: Option<Id>,
    /// What would have been appended.
    pub items: Vec<Id>,
    /// What would have been set by key.
    pub pairs: Vec<(Id, Id)>,
}

/// The values of a pickle.
#[derive(Debug)]
pub struct Pickle {
    nodes: Vec<Node>,
    root: Id,
}

impl Pickle {
    /// Reads a pickle of at most some hundred thousand values.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::parse_within(bytes, LIMIT, LIMIT)
    }

    /// Reads a pickle of any length, in memory in proportion to it: an index of a million values is long, and honest.
    pub fn parse_long(bytes: &[u8]) -> Result<Self> {
        // An operation has a byte at least.
        Self::parse_within(bytes, bytes.len(), LIMIT.max(bytes.len() / BYTES_PER_VALUE))
    }

    fn parse_within(bytes: &[u8], operations: usize, limit: usize) -> Result<Self> {
        let mut machine = Machine {
            input: bytes,
            position: 0,
            nodes: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            operations,
            limit,
            names: 0,
        };
        let root = machine.run().map_err(|why| {
            Error::corrupt(format!("not a pickle that can be read: {why}")).at("byte", machine.position)
        })?;
        Ok(Self {
            nodes: machine.nodes,
            root,
        })
    }

    /// The outermost value.
    pub fn root(&self) -> Id {
        self.root
    }

    /// A value.
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }
}

/// The machine. Every place on its stack, its memo and inside its nodes is an index of `nodes`.
struct Machine<'a> {
    input: &'a [u8],
    position: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    operations: usize,
    limit: usize,
    /// Bytes of the names of globals so far.
    names: usize,
}

type Step<T> = std::result::Result<T, &'static str>;

impl<'a> Machine<'a> {
    fn run(&mut self) -> Step<Id> {
        for _ in 0..self.operations {
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
            if self.stack.len().max(self.memo.len()).max(self.marks.len()) > self.limit {
                return Err("too many values");
            }
        }
        Err("too many operations")
    }

    fn step(&mut self, opcode: u8) -> Step<()> {
        match opcode {
            // PROTO, FRAME
            0x80 if self.byte()? > 5 => return Err("a protocol above 5"),
            0x80 => {}
            0x95 => {
                self.take(8)?;
            }
            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' if self.stack.len() > self.floor() => {
                self.stack.pop();
            }
            b'0' => {
                self.marks.pop().ok_or("nothing to pop")?;
            }
            b'1' => {
                self.pop_to_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            // NONE, NEWTRUE, NEWFALSE
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            // INT, LONG: in text. I00 and I01 are the bools of protocol 0
            b'I' => {
                let node = match self.line()? {
                    b"00" => Node::Bool(false),
                    b"01" => Node::Bool(true),
                    text => integer(text)?,
                };
                self.push(node)?;
            }
            b'L' => {
                let text = self.line()?;
                let text = text.strip_suffix(b"L").unwrap_or(text);
                self.push(integer(text)?)?;
            }
            // BININT, BININT1, BININT2, LONG1, LONG4
            b'J' => {
                let int = self.unsigned(4)? as u32 as i32;
                self.push(Node::Int(int.into()))?;
            }
            b'K' => {
                let int = self.unsigned(1)? as i64;
                self.push(Node::Int(int))?;
            }
            b'M' => {
                let int = self.unsigned(2)? as i64;
                self.push(Node::Int(int))?;
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            // FLOAT, BINFLOAT
            b'F' => {
                let float = number(self.line()?)?;
                self.push(Node::Float(float))?;
            }
            b'G' => {
                let bytes = self.take(8)?.try_into().map_err(|_| "a float of eight bytes")?;
                self.push(Node::Float(f64::from_be_bytes(bytes)))?;
            }
            // STRING, UNICODE
            b'S' => {
                let bytes = unquote(self.line()?)?;
                self.push(python2_string(bytes))?;
            }
            b'V' => {
                let text = raw_unicode(self.line()?)?;
                self.push(Node::Str(text))?;
            }
            // SHORT_BINSTRING, BINSTRING; SHORT_BINUNICODE, BINUNICODE, BINUNICODE8; the same for bytes; BYTEARRAY8
            b'U' | b'T' => {
                let bytes = self.counted(if opcode == b'U' { 1 } else { 4 })?.to_vec();
                self.push(python2_string(bytes))?;
            }
            0x8c | b'X' | 0x8d => {
                let width = [(0x8c, 1), (b'X', 4), (0x8d, 8)];
                let bytes = self.counted_by(opcode, &width)?.to_vec();
                let text = String::from_utf8(bytes).map_err(|_| "text that is not UTF-8")?;
                self.push(Node::Str(text))?;
            }
            b'C' | b'B' | 0x8e | 0x96 => {
                let width = [(b'C', 1), (b'B', 4), (0x8e, 8), (0x96, 8)];
                let bytes = self.counted_by(opcode, &width)?.to_vec();
                self.push(Node::Bytes(bytes))?;
            }
            // EMPTY_LIST, EMPTY_TUPLE, EMPTY_DICT, EMPTY_SET
            b']' => self.push(Node::List(Vec::new()))?,
            b')' => self.push(Node::Tuple(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            0x8f => self.push(Node::Set(Vec::new()))?,
            // LIST, TUPLE, DICT, FROZENSET
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Node::List(items))?;
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items))?;
            }
            b'd' => {
                let pairs = pairs(&self.pop_to_mark()?)?;
                self.push(Node::Dict(pairs))?;
            }
            0x91 => {
                let items = self.pop_to_mark()?;
                self.push(Node::Set(items))?;
            }
            // TUPLE1, TUPLE2, TUPLE3
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..opcode - 0x84 {
                    items.insert(0, self.pop()?);
                }
                self.push(Node::Tuple(items))?;
            }
            // APPEND, APPENDS, ADDITEMS
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            // SETITEM, SETITEMS
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![(key, value)])?;
            }
            b'u' => {
                let pairs = pairs(&self.pop_to_mark()?)?;
                self.set_items(pairs)?;
            }
            // PUT, BINPUT, LONG_BINPUT, MEMOIZE
            b'p' | b'q' | b'r' | 0x94 => {
                let key = match opcode {
                    b'p' => number(self.line()?)?,
                    b'q' => self.unsigned(1)?,
                    b'r' => self.unsigned(4)?,
                    _ => self.memo.len() as u64,
                };
                let top = self.top()?;
                self.memo.insert(key, top);
            }
            // GET, BINGET, LONG_BINGET
            b'g' | b'h' | b'j' => {
                let key = match opcode {
                    b'g' => number(self.line()?)?,
                    b'h' => self.unsigned(1)?,
                    _ => self.unsigned(4)?,
                };
                let id = self.memo.get(&key).copied();
                self.stack.push(id.ok_or("a memo that was not made")?);
            }
            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let text = |line: &[u8]| String::from_utf8(line.to_vec()).map_err(|_| "a name that is not UTF-8");
                let module = text(self.line()?)?;
                let name = text(self.line()?)?;
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Node::Str(module), Node::Str(name)) = (self.node(module), self.node(name)) else {
                    return Err("a global whose name is not text");
                };
                // Cut, so that what is too long is not copied whole before it is refused.
                let text = |text: &str| text.chars().take(NAME_LIMIT + 1).collect();
                let (module, name) = (text(module), text(name));
                self.global(module, name)?;
            }
            // REDUCE, NEWOBJ, NEWOBJ_EX: calls, that are noted
            b'R' | 0x81 => {
                let (arguments, class) = (self.pop()?, self.pop()?);
                self.object(class, arguments)?;
            }
            0x92 => {
                let (_keywords, arguments, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.object(class, arguments)?;
            }
            // BUILD
            b'b' => {
                let state = self.pop()?;
                match self.top_mut()? {
                    Node::Object(object) => object.state = Some(state),
                    _ => return Err("a state for what is no object"),
                }
            }
            _ => return Err("an operation that is refused"),
        }
        Ok(())
    }

    fn take(&mut self, n: usize) -> Step<&'a [u8]> {
        let rest = &self.input[self.position..];
        let taken = rest.get(..n).ok_or("cut short")?;
        self.position += n;
        Ok(taken)
    }

    fn byte(&mut self) -> Step<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn unsigned(&mut self, width: usize) -> Step<u64> {
        Ok(self
            .take(width)?
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn counted(&mut self, width: usize) -> Step<&'a [u8]> {
        let length = usize::try_from(self.unsigned(width)?).map_err(|_| "cut short")?;
        self.take(length)
    }

    fn counted_by(&mut self, opcode: u8, widths: &[(u8, usize)]) -> Step<&'a [u8]> {
        let width = widths.iter().find(|(own, _)| *own == opcode);
        self.counted(width.map_or(8, |(_, width)| *width))
    }

    fn line(&mut self) -> Step<&'a [u8]> {
        let rest = &self.input[self.position..];
        let end = rest
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("a line without an end")?;
        self.position += end + 1;
        Ok(&rest[..end])
    }

    fn long(&mut self, width: usize) -> Step<()> {
        let bytes = self.counted(width)?;
        let node = match bytes.len() {
            0..=8 => {
                let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
                let mut wide = [if negative { 0xff } else { 0 }; 8];
                wide[..bytes.len()].copy_from_slice(bytes);
                Node::Int(i64::from_le_bytes(wide))
            }
            _ => Node::Long(bytes.to_vec()),
        };
        self.push(node)
    }

    fn push(&mut self, node: Node) -> Step<()> {
        if self.nodes.len() >= self.limit {
            return Err("too many values");
        }
        self.stack.push(Id(self.nodes.len() as u32));
        self.nodes.push(node);
        Ok(())
    }

    /// Values below the last mark are out of reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Id> {
        if self.stack.len() <= self.floor() {
            return Err("nothing on the stack");
        }
        self.stack.pop().ok_or("nothing on the stack")
    }

    fn top(&self) -> Step<Id> {
        if self.stack.len() <= self.floor() {
            return Err("nothing on the stack");
        }
        self.stack.last().copied().ok_or("nothing on the stack")
    }

    fn top_mut(&mut self) -> Step<&mut Node> {
        let top = self.top()?;
        Ok(&mut self.nodes[top.0 as usize])
    }

    fn node(&self, id: Id) -> &Node {
        &self.nodes[id.0 as usize]
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark on the stack")?;
        if mark > self.stack.len() {
            return Err("a mark above the stack");
        }
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: Vec<Id>) -> Step<()> {
        match self.top_mut()? {
            Node::List(own) | Node::Set(own) => own.extend(items),
            Node::Object(object) => object.items.extend(items),
            _ => return Err("an item for what is no list"),
        }
        Ok(())
    }

    fn set_items(&mut self, pairs: Vec<(Id, Id)>) -> Step<()> {
        match self.top_mut()? {
            Node::Dict(own) => own.extend(pairs),
            Node::Object(object) => object.pairs.extend(pairs),
            _ => return Err("a key for what is no dict"),
        }
        Ok(())
    }

    fn global(&mut self, module: String, name: String) -> Step<()> {
        self.names += module.len() + name.len();
        if module.len().max(name.len()) > NAME_LIMIT || self.names > NAMES_LIMIT {
            return Err("names that are too long");
        }
        self.push(Node::Global(module, name))
    }

    fn object(&mut self, class: Id, arguments: Id) -> Step<()> {
        self.push(Node::Object(Object {
            class,
            arguments,
            state: None,
            items: Vec::new(),
            pairs: Vec::new(),
        }))
    }
}

fn pairs(items: &[Id]) -> Step<Vec<(Id, Id)>> {
    if !items.len().is_multiple_of(2) {
        return Err("a key without a value");
    }
    Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Step<T> {
    let text = std::str::from_utf8(text).map_err(|_| "a number that is not text")?;
    text.parse().map_err(|_| "a number that is none, or too large")
}

/// An int in text. One of more than 128 bits is refused.
fn integer(text: &[u8]) -> Step<Node> {
    match number(text) {
        Ok(int) => Ok(Node::Int(int)),
        Err(_) => Ok(Node::Long(number::<i128>(text)?.to_le_bytes().to_vec())),
    }
}

/// A byte string of Python 2 is text more often than not.
fn python2_string(bytes: Vec<u8>) -> Node {
    match String::from_utf8(bytes) {
        Ok(text) => Node::Str(text),
        Err(error) => Node::Bytes(error.into_bytes()),
    }
}

/// The bytes of a string literal as Python 2's `repr` writes it.
fn unquote(line: &[u8]) -> Step<Vec<u8>> {
    let (Some(open), Some(close)) = (line.first(), line.last()) else {
        return Err("a string without quotes");
    };
    if line.len() < 2 || open != close || !b"'\"".contains(open) {
        return Err("a string without quotes");
    }
    let mut rest = line[1..line.len() - 1].iter();
    let mut bytes = Vec::new();
    while let Some(byte) = rest.next() {
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        bytes.push(match rest.next().ok_or("an escape without an end")? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'x' => {
                let mut digit = || {
                    rest.next()
                        .and_then(|c| char::from(*c).to_digit(16))
                        .ok_or("an escape that is not hexadecimal")
                };
                (digit()? * 16 + digit()?) as u8
            }
            other => *other,
        });
    }
    Ok(bytes)
}

/// Text in Python's encoding `raw-unicode-escape`: Latin-1, and `\uXXXX` or `\UXXXXXXXX`.
fn raw_unicode(line: &[u8]) -> Step<String> {
    let mut text = String::new();
    let mut at = 0;
    while at < line.len() {
        let digits = match &line[at..] {
            [b'\\', b'u', ..] => 4,
            [b'\\', b'U', ..] => 8,
            _ => {
                text.push(char::from(line[at]));
                at += 1;
                continue;
            }
        };
        let hex = line
            .get(at + 2..at + 2 + digits)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        let code = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        text.push(code.and_then(char::from_u32).ok_or("an escape that is no character")?);
        at += 2 + digits;
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
