//! A simulated file system that can stop before any step and then lose unsynced data.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use freetumor::random::{Key, RandomStream};
use freetumor::store::FileSystem;

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
    /// The names that are visible to processes.
    visible: BTreeMap<String, Node>,
    /// The names that survive a power loss.
    durable: BTreeMap<String, Node>,
    steps: u64,
    stop_before: Option<u64>,
}

/// The simulated file system; clones are handles to the same file system.
#[derive(Clone, Default)]
pub struct SimulatedFileSystem(Arc<Mutex<State>>);

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl State {
    fn folder(&self, name: &str) -> io::Result<()> {
        match self.visible.get(name) {
            _ if name.is_empty() => Ok(()),
            Some(Node::Folder) => Ok(()),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn file(&self, name: &str) -> io::Result<usize> {
        match self.visible.get(name) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Folder) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }
}

impl SimulatedFileSystem {
    fn step(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.0.lock().unwrap();
        if state.stop_before.is_some_and(|stop| state.steps >= stop) {
            return Err(io::Error::other("the machine has stopped"));
        }
        state.steps += 1;
        Ok(state)
    }

    /// Returns the number of steps so far.
    pub fn steps(&self) -> u64 {
        self.0.lock().unwrap().steps
    }

    /// Makes the given step and all later steps fail.
    pub fn stop_before(&self, step: u64) {
        self.0.lock().unwrap().stop_before = Some(step);
    }

    /// Returns the file system after the process was killed.
    pub fn after_kill(&self) -> Self {
        let mut state = self.0.lock().unwrap().clone();
        (state.steps, state.stop_before) = (0, None);
        Self(Arc::new(Mutex::new(state)))
    }

    /// Returns the file system after a power loss: any part of unsynced names and contents may survive.
    pub fn after_power_loss(&self, key: Key) -> Self {
        let before = self.0.lock().unwrap().clone();
        let mut random = key.stream("loss");
        let mut after = State { inodes: before.inodes.clone(), ..State::default() };
        let names: Vec<&String> = before.visible.keys().chain(before.durable.keys()).collect();
        let mut names: Vec<&String> = names;
        names.sort_unstable();
        names.dedup();
        for name in names {
            let kept = if random.chance(0.5) { &before.visible } else { &before.durable };
            // In sorted order a folder comes before its entries.
            if let Some(node) = kept.get(name).filter(|_| after.folder(parent(name)).is_ok()) {
                after.visible.insert(name.clone(), *node);
            }
        }
        for inode in &mut after.inodes {
            inode.content = surviving_content(inode, &mut random);
            inode.synced = Some(inode.content.clone());
        }
        after.durable = after.visible.clone();
        Self(Arc::new(Mutex::new(after)))
    }

    /// Returns every file with its content.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.0.lock().unwrap();
        let file = |(name, node): (&String, &Node)| match node {
            Node::File(inode) => Some((name.clone(), state.inodes[*inode].content.clone())),
            Node::Folder => None,
        };
        state.visible.iter().filter_map(file).collect()
    }
}

fn surviving_content(inode: &Inode, random: &mut RandomStream) -> Vec<u8> {
    if inode.synced.as_ref() == Some(&inode.content) || random.chance(0.25) {
        return inode.content.clone();
    }
    let length = random.index(inode.content.len() + 1);
    let mut truncated = inode.content[..length].to_vec();
    if random.chance(0.5) {
        // The length was written, but not the content.
        truncated.resize(inode.content.len(), 0);
    }
    truncated
}

struct Handle {
    file_system: SimulatedFileSystem,
    inode: usize,
}

impl Write for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not a separate step: any part of unsynced content may survive a power loss.
        self.file_system.0.lock().unwrap().inodes[self.inode].content.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FileSystem for SimulatedFileSystem {
    fn create(&self, name: &str) -> io::Result<Box<dyn Write + Send>> {
        let mut state = self.step()?;
        state.folder(parent(name))?;
        let inode = match state.visible.get(name) {
            Some(Node::Folder) => return Err(ErrorKind::IsADirectory.into()),
            Some(Node::File(inode)) => *inode,
            None => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.visible.insert(name.to_owned(), Node::File(inode));
                inode
            }
        };
        state.inodes[inode].content.clear();
        Ok(Box::new(Handle { file_system: self.clone(), inode }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        let state = self.step()?;
        let content = state.inodes[state.file(name)?].content.clone();
        Ok(Box::new(io::Cursor::new(content)))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        let mut guard = self.step()?;
        let state = &mut *guard;
        match state.visible.get(name) {
            Some(Node::File(inode)) => {
                let inode = &mut state.inodes[*inode];
                inode.synced = Some(inode.content.clone());
            }
            None if !name.is_empty() => return Err(ErrorKind::NotFound.into()),
            _ => {
                state.durable.retain(|entry, _| parent(entry) != name);
                let entries = state.visible.iter().filter(|(entry, _)| parent(entry) == name);
                state.durable.extend(entries.map(|(entry, node)| (entry.clone(), *node)));
            }
        }
        Ok(())
    }

    fn make_folder(&self, name: &str, _private: bool) -> io::Result<()> {
        let mut state = self.step()?;
        state.folder(parent(name))?;
        match state.visible.get(name) {
            Some(Node::File(_)) => Err(ErrorKind::AlreadyExists.into()),
            Some(Node::Folder) => Ok(()),
            None if name.is_empty() => Ok(()),
            None => {
                state.visible.insert(name.to_owned(), Node::Folder);
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
        if state.visible.contains_key(second) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        state.visible.insert(second.to_owned(), Node::File(inode));
        Ok(())
    }

    fn is_same_file(&self, name: &str, second: &str) -> io::Result<bool> {
        let state = self.step()?;
        Ok(state.file(name)? == state.file(second)?)
    }

    fn rename(&self, name: &str, new: &str) -> io::Result<()> {
        let mut state = self.step()?;
        let inode = state.file(name)?;
        state.folder(parent(new))?;
        state.visible.remove(name);
        state.visible.insert(new.to_owned(), Node::File(inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.step()?;
        if state.visible.remove(name).is_none() {
            return Err(ErrorKind::NotFound.into());
        }
        let below = format!("{name}/");
        state.visible.retain(|entry, _| !entry.starts_with(&below));
        Ok(())
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.step()?.visible.contains_key(name))
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let mut file = self.open(name)?;
        io::copy(&mut file, &mut io::sink())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let state = self.step()?;
        state.folder(folder)?;
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let names = state.visible.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }
}
