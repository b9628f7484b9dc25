//! A worker's wish to end its connections gracefully, all of them or those that are idle, and the count of those that are still open.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

#[derive(Debug, Default)]
struct Inner {
    draining: Cell<bool>,
    keep_alive_off: Cell<bool>,
    idle_max: Cell<Option<Duration>>,
    uploads_off: Cell<bool>,
    open: Cell<usize>,
    wakers: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

/// The worker's end: begins the drain and counts connections.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    inner: Rc<Inner>,
}

impl Drain {
    /// Tells every connection to finish what it does and to close.
    pub fn start(&self) {
        self.inner.draining.set(true);
        self.wake();
    }

    /// Bounds how long connections may be idle, whether HTTP/1.1 connections may be kept after a response, and whether their requests may
    /// take their time to arrive. Holds at once, also for connections that are open already, until it is changed.
    pub fn shed(&self, idle_max: Option<Duration>, keep_alive: bool, uploads: bool) {
        self.inner.uploads_off.set(!uploads);
        self.inner.idle_max.set(idle_max);
        self.inner.keep_alive_off.set(!keep_alive);
        self.wake();
    }

    fn wake(&self) {
        for waker in self.inner.wakers.borrow_mut().iter_mut().filter_map(Option::take) {
            waker.wake();
        }
    }

    /// Whether the drain has begun.
    pub fn draining(&self) -> bool {
        self.inner.draining.get()
    }

    /// Connections that hold a watch.
    pub fn open(&self) -> usize {
        self.inner.open.get()
    }

    /// A watch for one connection, counted until it is dropped.
    pub fn watch(&self) -> DrainWatch {
        self.inner.open.set(self.inner.open.get() + 1);
        DrainWatch { inner: Rc::clone(&self.inner), slot: Cell::new(None) }
    }
}

/// One connection's view of the drain.
#[derive(Debug)]
pub struct DrainWatch {
    inner: Rc<Inner>,
    slot: Cell<Option<usize>>,
}

impl DrainWatch {
    /// Whether the drain has begun.
    pub fn draining(&self) -> bool {
        self.inner.draining.get()
    }

    /// Whether a response must be the last of its HTTP/1.1 connection.
    pub fn closes(&self) -> bool {
        self.inner.draining.get() || self.inner.keep_alive_off.get()
    }

    /// How long a connection may be idle at most.
    pub fn idle_max(&self) -> Option<Duration> {
        self.inner.idle_max.get()
    }

    /// Ready once the drain has begun; otherwise the task is woken when it does, and when connections must be shed.
    pub fn poll_draining(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.draining() {
            return Poll::Ready(());
        }
        self.register(cx);
        Poll::Pending
    }

    /// Whether a request that is still arriving must hurry; the task is woken when that changes.
    pub fn poll_hurries(&self, cx: &mut Context<'_>) -> bool {
        self.register(cx);
        self.inner.uploads_off.get()
    }

    fn register(&self, cx: &mut Context<'_>) {
        let mut wakers = self.inner.wakers.borrow_mut();
        let slot = self.slot.get().unwrap_or_else(|| {
            self.inner.free.borrow_mut().pop().unwrap_or_else(|| {
                wakers.push(None);
                wakers.len() - 1
            })
        });
        self.slot.set(Some(slot));
        match &wakers[slot] {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => wakers[slot] = Some(cx.waker().clone()),
        }
    }

    /// Waits for the drain to begin. Cancel-safe.
    pub async fn started(&self) {
        poll_fn(|cx| self.poll_draining(cx)).await;
    }
}

impl Drop for DrainWatch {
    fn drop(&mut self) {
        self.inner.open.set(self.inner.open.get() - 1);
        if let Some(slot) = self.slot.get() {
            self.inner.wakers.borrow_mut()[slot] = None;
            self.inner.free.borrow_mut().push(slot);
        }
    }
}
