//! Network namespaces as values: open, create, enter on a thread of its own, and make sockets in them.
//!
//! A socket belongs to the namespace of the thread that creates it and may then be used from anywhere. So the runtime's threads never
//! move: a short-lived thread enters the namespace, creates the socket, and hands it back.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{FsType, statfs};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};

/// `NSFS_MAGIC` of linux/magic.h: what `statfs` says of a mounted namespace.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
/// Connections a listener holds before they are accepted.
const BACKLOG: i32 = 1024;

/// A handle on a network namespace; it keeps the namespace alive. Cloning shares the handle.
#[derive(Clone, Debug)]
pub struct NetNs {
    file: Arc<OwnedFd>,
}

// === impl NetNs ===

impl NetNs {
    /// Opens the namespace mounted at `path`.
    ///
    /// # Errors
    /// When nothing can be opened there.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: Arc::new(File::open(path)?.into()) })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// Moves the calling thread, and the threads it starts later, into this namespace.
    ///
    /// # Errors
    /// When the process lacks `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }

    /// Runs `work` on a new thread inside the namespace and waits for it. Blocks the caller: for short work outside a runtime.
    ///
    /// # Errors
    /// When the thread cannot start, or cannot enter.
    pub fn run_blocking<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, || self.enter().map(|()| work()))?;
            thread.join().map_err(|_panic| io::Error::other("the namespace thread panicked"))?
        })
    }

    /// Runs `work` on a new thread inside the namespace without blocking the runtime. Dropping the future does not stop the work.
    ///
    /// # Errors
    /// When the thread cannot start, or cannot enter.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (done, result) = tokio::sync::oneshot::channel();
        let namespace = self.clone();
        std::thread::Builder::new().name("netns".into()).spawn(move || {
            let _caller_gone = done.send(namespace.enter().map(|()| work()));
        })?;
        result.await.map_err(|_gone| io::Error::other("the namespace thread panicked"))?
    }

    /// Connects a TCP socket made in the namespace. Set a deadline around it: the kernel's own is minutes.
    ///
    /// # Errors
    /// What `socket` or `connect` answered.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.run(move || tcp_socket(address)).await??;
        let stream = TcpSocket::from_std_stream(socket.into()).connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Listens for TCP on `address` in the namespace; port 0 lets the kernel choose.
    ///
    /// # Errors
    /// What `bind` or `listen` answered.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::from_std(self.run(move || std_listener(address)).await??)
    }

    /// As [`NetNs::listen`], for a program whose runtime does not run yet. The listener is in non-blocking mode.
    ///
    /// # Errors
    /// What `bind` or `listen` answered.
    pub fn listen_blocking(&self, address: SocketAddr) -> io::Result<std::net::TcpListener> {
        self.run_blocking(move || std_listener(address))?
    }

    /// Binds a UDP socket to `address` in the namespace.
    ///
    /// # Errors
    /// What `bind` answered.
    pub async fn bind_udp(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        let socket = self
            .run(move || {
                let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
                socket.set_nonblocking(true)?;
                socket.bind(&address.into())?;
                Ok::<_, io::Error>(socket)
            })
            .await??;
        UdpSocket::from_std(socket.into())
    }

    /// Creates a namespace mounted at `path`, or opens the one that is mounted there already.
    ///
    /// # Errors
    /// When a directory, the namespace or the mount cannot be made.
    pub(crate) fn ensure(path: &Path) -> io::Result<Self> {
        if is_mounted(path) {
            return Self::open(path);
        }
        Self::create(path)
    }

    /// Creates a namespace and mounts it at `path`, where no namespace is mounted.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let target = path.to_path_buf();
        std::thread::scope(|scope| {
            let thread =
                std::thread::Builder::new().name("netns-new".into()).spawn_scoped(scope, move || {
                    unshare(CloneFlags::CLONE_NEWNET)?;
                    mount_current(&target)?;
                    Self::current()
                })?;
            thread.join().map_err(|_panic| io::Error::other("the namespace thread panicked"))?
        })
    }

    /// Makes `directory` what `ip netns` expects: a shared mount of its own. Else the first `ip netns add` would mount it over itself, with
    /// copies of the namespaces in it, and the files underneath could never be deleted (iproute2's `create_netns_dir`).
    ///
    /// # Errors
    /// When the directory or the mount cannot be made.
    pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        // iproute2 takes the same lock.
        let _lock =
            Flock::lock(File::open(directory)?, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        let none = None::<&str>;
        if mount(none, directory, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none).is_err() {
            mount(Some(directory), directory, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
            mount(none, directory, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none)?;
        }
        Ok(())
    }

    /// Takes away what [`NetNs::prepare`] made, once nobody has a namespace there. Nothing there is fine.
    pub(crate) fn tidy(directory: &Path) {
        if fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none()) {
            // Refused while it is in use, or where it is no mount: then there is nothing to take away.
            let _in_use = umount2(directory, MntFlags::UMOUNT_NOFOLLOW);
        }
    }

    /// Unmounts whatever namespace is mounted at `path` and deletes the file. Nothing there is fine.
    pub(crate) fn remove(path: &Path) -> io::Result<()> {
        let mut tries = 0;
        while is_mounted(path) && tries < 16 {
            umount2(path, MntFlags::MNT_DETACH)?;
            tries += 1;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Whether a namespace is mounted at `path` (a leftover plain file is not one).
pub(crate) fn is_mounted(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

fn mount_current(target: &PathBuf) -> io::Result<()> {
    let source = Path::new("/proc/thread-self/ns/net");
    Ok(mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn std_listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = tcp_socket(address)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connects to `address` with a TCP socket made in the namespace mounted at `namespace`.
///
/// # Errors
/// When the namespace cannot be opened, and what [`NetNs::connect`] says.
pub async fn connect_in(namespace: &Path, address: SocketAddr) -> io::Result<TcpStream> {
    NetNs::open(namespace)?.connect(address).await
}

/// Listens on `address` in the namespace mounted at `namespace`.
///
/// # Errors
/// When the namespace cannot be opened, and what [`NetNs::listen`] says.
pub async fn listen_in(namespace: &Path, address: SocketAddr) -> io::Result<TcpListener> {
    NetNs::open(namespace)?.listen(address).await
}

/// Binds a UDP socket to `address` in the namespace mounted at `namespace`.
///
/// # Errors
/// When the namespace cannot be opened, and what [`NetNs::bind_udp`] says.
pub async fn bind_udp_in(namespace: &Path, address: SocketAddr) -> io::Result<UdpSocket> {
    NetNs::open(namespace)?.bind_udp(address).await
}

/// Runs `work` on a thread of its own inside the namespace mounted at `namespace`.
///
/// # Errors
/// When the namespace cannot be opened or entered.
pub async fn run_in<T: Send + 'static>(
    namespace: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    NetNs::open(namespace)?.run(work).await
}
