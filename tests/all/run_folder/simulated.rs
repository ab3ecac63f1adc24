//! A disk that can stop before any step, and then lose what was not synced.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use freetumor::random::{Key, RandomStream};
use freetumor::store::Disk;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Clone, Default)]
struct Inode {
    content: Vec<u8>,
    synced: Option<Vec<u8>>,
}

#[derive(Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    /// What programs see.
    seen: BTreeMap<String, Node>,
    /// What a loss of power leaves for sure.
    durable: BTreeMap<String, Node>,
    steps: u64,
    stop_before: Option<u64>,
}

/// The disk; clones are handles to the same one.
#[derive(Clone, Default)]
pub struct SimulatedDisk(Arc<Mutex<State>>);

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl State {
    fn folder(&self, name: &str) -> io::Result<()> {
        match self.seen.get(name) {
            _ if name.is_empty() => Ok(()),
            Some(Node::Folder) => Ok(()),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        match self.seen.get(name) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Folder) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }
}

impl SimulatedDisk {
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.0.lock().unwrap();
        if state.stop_before.is_some_and(|stop| state.steps >= stop) {
            return Err(io::Error::other("the machine has stopped"));
        }
        state.steps += 1;
        Ok(state)
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.0.lock().unwrap().steps
    }

    /// Lets every step from the given one on fail.
    pub fn stop_before(&self, step: u64) {
        self.0.lock().unwrap().stop_before = Some(step);
    }

    /// The disk as the next process finds it where only the process died.
    pub fn after_kill(&self) -> Self {
        let mut state = self.0.lock().unwrap().clone();
        (state.steps, state.stop_before) = (0, None);
        Self(Arc::new(Mutex::new(state)))
    }

    /// The disk after a loss of power: of names and contents that were not synced anything may be left.
    pub fn after_power_loss(&self, key: Key) -> Self {
        let before = self.0.lock().unwrap().clone();
        let mut draws = key.draws("loss");
        let mut after = State { inodes: before.inodes.clone(), ..State::default() };
        let names: Vec<&String> = before.seen.keys().chain(before.durable.keys()).collect();
        let mut names: Vec<&String> = names;
        names.sort_unstable();
        names.dedup();
        for name in names {
            let kept = if draws.chance(0.5) { &before.seen } else { &before.durable };
            // In sorted order a folder comes before what is in it.
            if let Some(node) = kept.get(name).filter(|_| after.folder(parent(name)).is_ok()) {
                after.seen.insert(name.clone(), *node);
            }
        }
        for inode in &mut after.inodes {
            inode.content = survivor(inode, &mut draws);
            inode.synced = Some(inode.content.clone());
        }
        after.durable = after.seen.clone();
        Self(Arc::new(Mutex::new(after)))
    }

    /// Every file with its content.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock().unwrap();
        let file = |(name, node): (&String, &Node)| match node {
            Node::File(inode) => Some((name.clone(), state.inodes[*inode].content.clone())),
            Node::Folder => None,
        };
        state.seen.iter().filter_map(file).collect()
    }
}

fn survivor(inode: &Inode, draws: &mut RandomStream) -> Vec<u8> {
    if inode.synced.as_ref() == Some(&inode.content) || draws.chance(0.25) {
        return inode.content.clone();
    }
    let length = draws.index(inode.content.len() + 1);
    let mut torn = inode.content[..length].to_vec();
    if draws.chance(0.5) {
        // The length reached the disk, the content did not.
        torn.resize(inode.content.len(), 0);
    }
    torn
}

struct Handle {
    disk: SimulatedDisk,
    inode: usize,
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // No step of its own: a loss of power leaves any part of what was not synced.
        self.disk.0.lock().unwrap().inodes[self.inode].content.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Disk for SimulatedDisk {
    fn create(&self, name: &str) -> io::Result<Box<dyn Write + Send>> {
        let mut state = self.step()?;
        state.folder(parent(name))?;
        let inode = match state.seen.get(name) {
            Some(Node::Folder) => return Err(ErrorKind::IsADirectory.into()),
            Some(Node::File(inode)) => *inode,
            None => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.seen.insert(name.to_owned(), Node::File(inode));
                inode
            }
        };
        state.inodes[inode].content.clear();
        Ok(Box::new(Handle { disk: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let state = self.step()?;
        let content = state.inodes[state.file(name)?].content.clone();
        Ok(Box::new(io::Cursor::new(content)))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut guard = self.step()?;
        let state = &mut *guard;
        match state.seen.get(name) {
            Some(Node::File(inode)) => {
                let inode = &mut state.inodes[*inode];
                inode.synced = Some(inode.content.clone());
            }
            None if !name.is_empty() => return Err(ErrorKind::NotFound.into()),
            _ => {
                state.durable.retain(|entry, _| parent(entry) != name);
                let entries = state.seen.iter().filter(|(entry, _)| parent(entry) == name);
                state.durable.extend(entries.map(|(entry, node)| (entry.clone(), *node)));
            }
        }
        Ok(())
    }

    fn make_folder(&self, name: &str, _private: bool) -> io::Result<()> {
        let mut state = self.step()?;
        state.folder(parent(name))?;
        match state.seen.get(name) {
            Some(Node::File(_)) => Err(ErrorKind::AlreadyExists.into()),
            Some(Node::Folder) => Ok(()),
            None if name.is_empty() => Ok(()),
            None => {
                state.seen.insert(name.to_owned(), Node::Folder);
                Ok(())
            }
        }
    }

    fn make_public(&self, name: &str, _folder: &str) -> io::Result<()> {
        self.step()?.file(name).map(drop)
    }

    fn make_private(&self, _folder: &str) -> io::Result<()> {
        self.step().map(drop)
    }

    fn link(&self, name: &str, second: &str) -> io::Result<()> {
        let mut state = self.step()?;
        let inode = state.file(name)?;
        state.folder(parent(second))?;
        if state.seen.contains_key(second) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.seen.insert(second.to_owned(), Node::File(inode));
        Ok(())
    }

    fn rename(&self, name: &str, new: &str) -> io::Result<()> {
        let mut state = self.step()?;
        let inode = state.file(name)?;
        state.folder(parent(new))?;
        state.seen.remove(name);
        state.seen.insert(new.to_owned(), Node::File(inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.step()?;
        if state.seen.remove(name).is_none() {
            return Err(ErrorKind::NotFound.into());
        }
        let below = format!("{name}/");
        state.seen.retain(|entry, _| !entry.starts_with(&below));
        Ok(())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.step()?.seen.contains_key(name))
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let mut file = self.open(name)?;
        io::copy(&mut file, &mut io::sink())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.step()?;
        state.folder(folder)?;
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let names = state.seen.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }
}
