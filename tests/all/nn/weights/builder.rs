//! Builds checkpoints byte by byte: valid files, and files with false claims.

use std::io::Write;

use flate2::{Compression, Crc, write::DeflateEncoder};

/// One entry of a zip archive.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub content: Vec<u8>,
    pub deflated: bool,
    /// The size in the entry's header, if it differs from the size of the content.
    pub claimed_bytes: Option<u32>,
}

impl Entry {
    pub fn new(name: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { name: name.to_owned(), content: content.into(), deflated: false, claimed_bytes: None }
    }
}

/// Returns a zip archive, in the form that small tools write.
pub fn zip(entries: &[Entry]) -> Vec<u8> {
    let (mut file, mut table) = (Vec::new(), Vec::new());
    for entry in entries {
        let mut crc = Crc::new();
        crc.update(&entry.content);
        let packed = if entry.deflated {
            let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(&entry.content).unwrap();
            encoder.finish().unwrap()
        } else {
            entry.content.clone()
        };
        let bytes = entry.claimed_bytes.unwrap_or(entry.content.len() as u32);
        let packed_bytes = if entry.deflated { packed.len() as u32 } else { bytes };
        let mut common = vec![20, 0, 0, 0, if entry.deflated { 8 } else { 0 }, 0, 0, 0, 0, 0];
        common.extend(crc.sum().to_le_bytes());
        common.extend(packed_bytes.to_le_bytes());
        common.extend(bytes.to_le_bytes());
        common.extend((entry.name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        table.extend(b"PK\x01\x02\x14\x00");
        table.extend(&common);
        table.extend([0; 10]);
        table.extend((file.len() as u32).to_le_bytes());
        table.extend(entry.name.as_bytes());
        file.extend(b"PK\x03\x04");
        file.extend(&common);
        file.extend(entry.name.as_bytes());
        file.extend(&packed);
    }
    let (start, count) = (file.len() as u32, entries.len() as u16);
    file.extend(&table);
    file.extend(b"PK\x05\x06\0\0\0\0");
    file.extend(count.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend((table.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0, 0]);
    file
}

/// Returns a checkpoint of a pickle and storages.
pub fn checkpoint(pickle: &Pickle, storages: &[(&str, &[u8])]) -> Vec<u8> {
    zip(&entries(pickle, storages))
}

pub fn entries(pickle: &Pickle, storages: &[(&str, &[u8])]) -> Vec<Entry> {
    let mut entries = vec![Entry::new("archive/data.pkl", pickle.clone().finish())];
    entries.push(Entry::new("archive/byteorder", *b"little"));
    entries.extend(storages.iter().map(|(key, bytes)| Entry::new(&format!("archive/data/{key}"), *bytes)));
    entries
}

/// Returns the bytes of f32 numbers.
pub fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A builder of a pickle of protocol 2.
#[derive(Clone)]
pub struct Pickle(pub Vec<u8>);

impl Pickle {
    pub fn new() -> Self {
        Self(vec![0x80, 2])
    }

    /// Starts an empty dict and the mark of its items.
    pub fn dict() -> Self {
        Self::new().raw(b"}(")
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub fn text(mut self, text: &str) -> Self {
        self.0.push(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    pub fn int(mut self, number: i64) -> Self {
        self.0.extend([0x8a, 8]);
        self.0.extend(number.to_le_bytes());
        self
    }

    pub fn tuple(mut self, numbers: &[i64]) -> Self {
        self.0.push(b'(');
        for number in numbers {
            self = self.int(*number);
        }
        self.raw(b"t")
    }

    pub fn global(self, module: &str, name: &str) -> Self {
        self.raw(format!("c{module}\n{name}\n").as_bytes())
    }

    /// Appends the storage `key` of `count` numbers of a class such as `FloatStorage`.
    pub fn storage(self, class: &str, key: &str, count: i64) -> Self {
        self.raw(b"(").text("storage").global("torch", class).text(key).text("cpu").int(count).raw(b"tQ")
    }

    /// Appends a name and its tensor.
    pub fn tensor(self, name: &str, storage: (&str, &str, i64), offset: i64, shape: &[i64], strides: &[i64]) -> Self {
        let (class, key, count) = storage;
        let call = self.text(name).global("torch._utils", "_rebuild_tensor_v2").raw(b"(");
        let call = call.storage(class, key, count).int(offset).tuple(shape).tuple(strides);
        call.raw(b"\x89").global("collections", "OrderedDict").raw(b")RtR")
    }

    /// Appends a name and a contiguous f32 vector, alone in storage 0.
    pub fn vector(self, name: &str, count: i64) -> Self {
        self.tensor(name, ("FloatStorage", "0", count), 0, &[count], &[1])
    }

    /// Closes the dict.
    pub fn end(self) -> Self {
        self.raw(b"u")
    }

    pub fn finish(self) -> Vec<u8> {
        self.raw(b".").0
    }
}
