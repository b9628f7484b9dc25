use std::collections::VecDeque;

use super::*;

/// Gives its pieces one by one.
struct Pieces(VecDeque<Bytes>);

impl Layer for Pieces {}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
    }
}

fn replay(pieces: &[&[u8]]) -> Replay {
    let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
    Replay::new(Body::wrap(Pieces(pieces)), None)
}

fn read(body: &mut Body) -> Option<Result<Bytes, BodyError>> {
    let Poll::Ready(frame) = Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop())) else {
        panic!("the body waits");
    };
    frame.map(|frame| frame.map(|frame| frame.into_data().unwrap_or_default()))
}

fn all(mut body: Body) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(piece) = read(&mut body) {
        whole.extend_from_slice(&piece.unwrap());
    }
    whole
}

#[test]
fn a_small_body_is_sent_twice() {
    let replay = replay(&[b"ab", b"c"]);
    assert_eq!(all(replay.reader()), b"abc");
    assert!(replay.is_whole() && replay.is_ended());
    let again = replay.reader();
    assert_eq!(again.size_hint().exact(), Some(3));
    assert_eq!(all(again), b"abc");
}

#[test]
fn an_interrupted_sending_starts_again_and_goes_on() {
    let replay = replay(&[b"ab", b"c", b"d"]);
    let mut first = replay.reader();
    assert_eq!(read(&mut first).unwrap().unwrap(), "ab");
    drop(first);
    assert_eq!(all(replay.reader()), b"abcd");
}

#[test]
fn a_large_body_passes_once_in_bounded_memory() {
    let piece = vec![7; 100 * 1024];
    let replay = replay(&[&piece, &piece, &piece, &piece]);
    assert_eq!(all(replay.reader()).len(), 400 * 1024);
    assert!(!replay.is_whole());
    assert!(replay.state.borrow().kept.is_empty());
}

#[test]
fn a_copy_follows_and_never_takes_a_piece_away() {
    let replay = replay(&[b"ab", b"c"]);
    let (mut copy, mut main) = (replay.copy(), replay.reader());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut copy).poll_frame(&mut cx).is_pending());
    assert_eq!(read(&mut main).unwrap().unwrap(), "ab");
    assert_eq!(read(&mut copy).unwrap().unwrap(), "ab");
    assert!(Pin::new(&mut copy).poll_frame(&mut cx).is_pending());
    assert_eq!(all(main), b"c");
    assert_eq!(all(copy), b"c");
}

#[test]
fn a_copy_of_a_large_body_fails_alone() {
    let piece = vec![7; 100 * 1024];
    let replay = replay(&[&piece, &piece, &piece, &piece]);
    let mut copy = replay.copy();
    assert_eq!(all(replay.reader()).len(), 400 * 1024);
    assert!(matches!(read(&mut copy), Some(Err(BodyError::GivenUp(_)))));
}
