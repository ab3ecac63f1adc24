//! The interpreter of a pickle's instructions.

use std::collections::BTreeMap;

use super::value::{Id, MAX_NAME_LEN, PickleValue, Span, Storage, StoredTensor, text};
use crate::nn::weights::element::ElementType;

/// The description of an error in a pickle.
type PickleError = String;

/// The state of the interpreter: the position in the pickle, the stack, and the objects.
#[derive(Default)]
pub(super) struct Unpickler<'p> {
    bytes: &'p [u8],
    at: usize,
    objects: Vec<PickleValue>,
    stack: Vec<Id>,
    /// The height of the stack at each mark.
    marks: Vec<usize>,
    memo: BTreeMap<u32, Id>,
    /// Items copied from one sequence into another.
    copied: usize,
}

impl<'p> Unpickler<'p> {
    /// Runs a pickle: returns all objects and the id of the result, or the byte and the description of an error.
    pub(super) fn run(bytes: &'p [u8]) -> Result<(Vec<PickleValue>, Id), (usize, PickleError)> {
        let mut unpickler = Unpickler { bytes, ..Unpickler::default() };
        match unpickler.steps() {
            Ok(root) => Ok((unpickler.objects, root)),
            Err(error) => Err((unpickler.at, error)),
        }
    }

    fn steps(&mut self) -> Result<Id, PickleError> {
        loop {
            let code = self.number::<1>()?;
            if code == u64::from(b'.') {
                return self.pop();
            }
            self.step(code as u8)?;
        }
    }

    /// Executes one instruction; the names are those of Python's `pickletools`.
    fn step(&mut self, code: u8) -> Result<(), PickleError> {
        match code {
            0x80 => drop(self.number::<1>()?),                   // PROTO
            0x95 => drop(self.number::<8>()?),                   // FRAME
            b'(' => self.marks.push(self.stack.len()),           // MARK
            b'0' => self.discard()?,                             // POP
            b'1' => drop(self.above_mark()?),                    // POP_MARK
            b'2' => self.stack.push(self.top()?),                // DUP
            b'N' | 0x88 | 0x89 => self.push(PickleValue::Plain), // NONE, NEWTRUE, NEWFALSE
            b'J' => {
                let number = self.number::<4>()?; // BININT
                self.push(PickleValue::Int(i64::from(number as u32 as i32)));
            }
            b'K' => self.int::<1>()?,                                    // BININT1
            b'M' => self.int::<2>()?,                                    // BININT2
            0x8a => self.long::<1>()?,                                   // LONG1
            0x8b => self.long::<4>()?,                                   // LONG4
            b'G' => self.plain(8)?,                                      // BINFLOAT
            b'X' => self.unicode::<4>()?,                                // BINUNICODE
            0x8c => self.unicode::<1>()?,                                // SHORT_BINUNICODE
            0x8d => self.unicode::<8>()?,                                // BINUNICODE8
            b'U' | b'C' => self.blob::<1>()?,                            // SHORT_BINSTRING, SHORT_BINBYTES
            b'T' | b'B' => self.blob::<4>()?,                            // BINSTRING, BINBYTES
            0x8e | 0x96 => self.blob::<8>()?,                            // BINBYTES8, BYTEARRAY8
            b']' | b')' => self.push(PickleValue::Sequence(Vec::new())), // EMPTY_LIST, EMPTY_TUPLE
            b'}' => self.push(PickleValue::Mapping(Vec::new())),         // EMPTY_DICT
            0x8f => self.push(PickleValue::Plain),                       // EMPTY_SET
            b'l' | b't' => {
                let items = self.above_mark()?; // LIST, TUPLE
                self.push(PickleValue::Sequence(items));
            }
            0x85..=0x87 => self.tuple(usize::from(code - 0x84))?, // TUPLE1, TUPLE2, TUPLE3
            b'd' => {
                let items = self.above_mark()?; // DICT
                self.push(PickleValue::Mapping(pairs(&items)?));
            }
            0x90 => drop(self.above_mark()?), // ADDITEMS
            0x91 => {
                self.above_mark()?; // FROZENSET
                self.push(PickleValue::Plain);
            }
            b'a' => {
                let item = self.pop()?; // APPEND
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.above_mark()?; // APPENDS
                self.append(items)?;
            }
            b's' => {
                let value = self.pop()?; // SETITEM
                let key = self.pop()?;
                self.set(vec![(key, value)])?;
            }
            b'u' => {
                let items = self.above_mark()?; // SETITEMS
                self.set(pairs(&items)?)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?); // GLOBAL
                self.push(PickleValue::Global(module, name));
            }
            0x93 => self.stack_global()?, // STACK_GLOBAL
            b'R' => self.reduce()?,       // REDUCE
            0x81 => self.reduce()?,       // NEWOBJ
            0x92 => {
                self.pop()?; // NEWOBJ_EX: no supported call has keywords
                self.reduce()?;
            }
            b'b' => drop(self.pop()?), // BUILD: attributes, which no tensor needs
            b'i' => {
                let (module, name) = (self.line()?, self.line()?); // INST
                self.above_mark()?;
                let class = self.add(PickleValue::Global(module, name));
                self.push(PickleValue::Unsupported(class));
            }
            b'o' => {
                let class =
                    self.above_mark()?.first().copied().ok_or("OBJ: expected a class after the mark, got none")?; // OBJ
                self.push(PickleValue::Unsupported(class));
            }
            b'Q' => self.storage()?,       // BINPERSID
            b'h' => self.recall::<1>()?,   // BINGET
            b'j' => self.recall::<4>()?,   // LONG_BINGET
            b'q' => self.remember::<1>()?, // BINPUT
            b'r' => self.remember::<4>()?, // LONG_BINPUT
            0x94 => {
                let top = self.top()?; // MEMOIZE
                self.memo.insert(self.memo.len() as u32, top);
            }
            _ => return Err(format!("unsupported instruction {code:#04x}")),
        }
        Ok(())
    }

    fn add(&mut self, object: PickleValue) -> Id {
        self.objects.push(object);
        (self.objects.len() - 1) as Id
    }

    fn push(&mut self, object: PickleValue) {
        let id = self.add(object);
        self.stack.push(id);
    }

    /// Returns the height of the last mark: items below a mark are inaccessible until the mark is popped.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<Id, PickleError> {
        self.stack[self.floor()..].last().copied().ok_or_else(|| "expected an object on the stack, got none".to_owned())
    }

    fn pop(&mut self) -> Result<Id, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    /// Pops the top, an object or a mark.
    fn discard(&mut self) -> Result<(), PickleError> {
        if self.stack.len() > self.floor() {
            self.stack.pop();
            return Ok(());
        }
        self.marks.pop().map(drop).ok_or_else(|| "expected an object or a mark on the stack, got none".to_owned())
    }

    fn above_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or("expected a mark on the stack, got none")?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, count: u64) -> Result<Span, PickleError> {
        let left = (self.bytes.len() - self.at) as u64;
        if count > left {
            return Err(format!("expected {count} more bytes, got {left}"));
        }
        let start = self.at;
        self.at += count as usize;
        Ok(start as u32..self.at as u32)
    }

    /// Reads an unsigned number of `N` bytes, little endian.
    fn number<const N: usize>(&mut self) -> Result<u64, PickleError> {
        let span = self.take(N as u64)?;
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.bytes[span.start as usize..span.end as usize]);
        Ok(u64::from_le_bytes(bytes))
    }

    fn int<const N: usize>(&mut self) -> Result<(), PickleError> {
        let number = self.number::<N>()?;
        self.push(PickleValue::Int(number as i64));
        Ok(())
    }

    /// Reads a number of any length, after its length in `N` bytes.
    fn long<const N: usize>(&mut self) -> Result<(), PickleError> {
        let count = self.number::<N>()?;
        let span = self.take(count)?;
        let bytes = &self.bytes[span.start as usize..span.end as usize];
        if bytes.len() > 8 {
            self.push(PickleValue::Plain);
            return Ok(());
        }
        let sign = if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
        let mut number = [sign; 8];
        number[..bytes.len()].copy_from_slice(bytes);
        self.push(PickleValue::Int(i64::from_le_bytes(number)));
        Ok(())
    }

    fn plain(&mut self, count: u64) -> Result<(), PickleError> {
        self.take(count)?;
        self.push(PickleValue::Plain);
        Ok(())
    }

    fn blob<const N: usize>(&mut self) -> Result<(), PickleError> {
        let count = self.number::<N>()?;
        self.plain(count)
    }

    fn unicode<const N: usize>(&mut self) -> Result<(), PickleError> {
        let count = self.number::<N>()?;
        let span = self.take(count)?;
        self.check_utf8(&span)?;
        self.push(PickleValue::Text(span));
        Ok(())
    }

    fn check_utf8(&self, span: &Span) -> Result<(), PickleError> {
        let bytes = &self.bytes[span.start as usize..span.end as usize];
        std::str::from_utf8(bytes).map(drop).map_err(|_| "expected a string in UTF-8, got other bytes".to_owned())
    }

    /// Reads a string up to the end of the line.
    fn line(&mut self) -> Result<Span, PickleError> {
        let count = self.bytes[self.at..]
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("expected a line that ends with a newline, got none")?;
        let span = self.take(count as u64)?;
        self.at += 1;
        self.check_utf8(&span)?;
        Ok(span)
    }

    fn tuple(&mut self, count: usize) -> Result<(), PickleError> {
        if self.stack.len() - self.floor() < count {
            return Err(format!("expected {count} objects on the stack for a tuple, got fewer"));
        }
        let items = self.stack.split_off(self.stack.len() - count);
        self.push(PickleValue::Sequence(items));
        Ok(())
    }

    fn append(&mut self, more: Vec<Id>) -> Result<(), PickleError> {
        let list = self.top()?;
        if let PickleValue::Sequence(items) = &mut self.objects[list as usize] {
            items.extend(more);
        }
        Ok(())
    }

    fn set(&mut self, more: Vec<(Id, Id)>) -> Result<(), PickleError> {
        let target = self.top()? as usize;
        match &mut self.objects[target] {
            PickleValue::Mapping(items) => items.extend(more),
            // An object that is filled like a dict, such as an instance of a subclass of dict.
            object @ PickleValue::Unsupported(_) => *object = PickleValue::Mapping(more),
            _ => {}
        }
        Ok(())
    }

    fn recall<const N: usize>(&mut self) -> Result<(), PickleError> {
        let key = self.number::<N>()? as u32;
        let id = self.memo.get(&key).ok_or_else(|| format!("expected an object in memo {key}, got none"))?;
        self.stack.push(*id);
        Ok(())
    }

    fn remember<const N: usize>(&mut self) -> Result<(), PickleError> {
        let key = self.number::<N>()? as u32;
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn stack_global(&mut self) -> Result<(), PickleError> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (&self.objects[module as usize], &self.objects[name as usize]) {
            (PickleValue::Text(module), PickleValue::Text(name)) => {
                let global = PickleValue::Global(module.clone(), name.clone());
                self.push(global);
                Ok(())
            }
            _ => Err("STACK_GLOBAL: expected two strings, got other objects".to_owned()),
        }
    }

    /// Returns the arguments of a call.
    fn arguments(&self, id: Id) -> &[Id] {
        match &self.objects[id as usize] {
            PickleValue::Sequence(items) => items,
            _ => &[],
        }
    }

    /// Interprets a call: the few callables that create mappings and tensors are emulated; the result of any other call is
    /// [`PickleValue::Unsupported`].
    fn reduce(&mut self) -> Result<(), PickleError> {
        let (mut arguments, mut callable) = (self.pop()?, self.pop()?);
        // A tensor of a subclass is created by a call whose arguments are the call that creates a tensor.
        for _ in 0..4 {
            match (self.global_of(callable), self.arguments(arguments)) {
                (Some(("torch._tensor", "_rebuild_from_type_v2")), [inner, _, inside, ..]) => {
                    (callable, arguments) = (*inner, *inside);
                }
                _ => break,
            }
        }
        let items = self.arguments(arguments);
        let result = match (self.global_of(callable), items) {
            (Some(("collections", "OrderedDict")), []) => PickleValue::Mapping(Vec::new()),
            (Some(("collections", "defaultdict")), _) => PickleValue::Mapping(Vec::new()),
            (Some(("collections", "OrderedDict")), [list, ..]) => self.of_pairs(*list)?,
            (Some(("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")), [tensor, ..])
            | (Some(("torch", "Size")), [tensor, ..]) => {
                self.stack.push(*tensor);
                return Ok(());
            }
            (Some(("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2")), items) => self.tensor(items, None)?,
            (Some(("torch._utils", "_rebuild_tensor_v3")), items) => self.tensor(items, items.get(6).copied())?,
            _ => PickleValue::Unsupported(callable),
        };
        self.push(result);
        Ok(())
    }

    /// Returns the module and the name of a class or function.
    fn global_of(&self, callable: Id) -> Option<(&str, &str)> {
        match &self.objects[callable as usize] {
            PickleValue::Global(module, name) if module.len() + name.len() <= MAX_NAME_LEN => {
                Some((text(self.bytes, module), text(self.bytes, name)))
            }
            _ => None,
        }
    }

    /// Creates a mapping from a list of pairs, the form that Python 2 wrote.
    fn of_pairs(&mut self, list: Id) -> Result<PickleValue, PickleError> {
        self.copied += self.arguments(list).len();
        // A valid pickle copies each list once; a list that is copied many times is an attack.
        if self.copied > self.bytes.len() {
            return Err(format!("expected at most {} items, got more", self.bytes.len()));
        }
        let pair = |item: &Id| match self.arguments(*item) {
            [key, value] => Ok((*key, *value)),
            _ => Err("expected an OrderedDict of pairs, got other items".to_owned()),
        };
        self.arguments(list).iter().map(pair).collect::<Result<_, _>>().map(PickleValue::Mapping)
    }

    /// Creates a tensor from `(storage, offset, shape, strides, …)`.
    fn tensor(&self, arguments: &[Id], dtype: Option<Id>) -> Result<PickleValue, PickleError> {
        let [storage, offset, shape, strides, ..] = *arguments else {
            return Err(format!("expected 4 or more arguments of a tensor, got {}", arguments.len()));
        };
        match (&self.objects[storage as usize], &self.objects[offset as usize]) {
            (PickleValue::Storage(_), PickleValue::Int(offset)) if *offset >= 0 => {
                Ok(PickleValue::Tensor(StoredTensor { storage, offset: *offset as u64, shape, strides, dtype }))
            }
            _ => Err("expected a storage and an offset of a tensor, got other objects".to_owned()),
        }
    }

    /// Creates a storage from `('storage', class, key, location, count)`.
    fn storage(&mut self) -> Result<(), PickleError> {
        let persistent = self.pop()?;
        let [tag, class, key, _, count] = *self.arguments(persistent) else {
            return Err("expected a storage as the persistent object, got another object".to_owned());
        };
        let element = self.global_of(class).and_then(|(_, class)| ElementType::of_storage(class));
        let [tag, key, count] = [tag, key, count].map(|id| &self.objects[id as usize]);
        match (tag, key, count) {
            (PickleValue::Text(tag), PickleValue::Text(key), PickleValue::Int(count))
                if self.bytes[tag.start as usize..tag.end as usize] == *b"storage" && *count >= 0 =>
            {
                let storage = Storage { element, key: key.clone(), count: *count as u64 };
                self.push(PickleValue::Storage(storage));
                Ok(())
            }
            _ => Err("expected a storage as the persistent object, got another object".to_owned()),
        }
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, PickleError> {
    match items.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect()),
        _ => Err("expected a value for each key, got a key without one".to_owned()),
    }
}
