//! Bodies of HTTP/2 streams: receiving, and the pump that sends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ::h2::{Reason, RecvStream, SendStream};
use bytes::Bytes;
use http_body::{Body as _, Frame};

use super::client::Active;
use crate::body::{Body, BodyError};

/// A body that is received. At a client it also carries the rest of the request that is still being sent.
pub(crate) struct RecvBody {
    stream: RecvStream,
    left: Option<u64>,
    data_done: bool,
    sending: Option<Pump>,
    _active: Option<Active>,
}

impl RecvBody {
    pub(crate) fn new(stream: RecvStream, length: Option<u64>) -> Self {
        Self { stream, left: length, data_done: false, sending: None, _active: None }
    }

    pub(crate) fn of_response(
        stream: RecvStream,
        length: Option<u64>,
        sending: Option<Pump>,
        active: Active,
    ) -> Self {
        Self { sending, _active: Some(active), ..Self::new(stream, length) }
    }

    /// Goes on sending the request; the error of its body, if that failed.
    fn drive(&mut self, cx: &mut Context<'_>) -> Option<BodyError> {
        match self.sending.as_mut()?.poll(cx) {
            Poll::Pending => None,
            // The peer may reset the request and still complete its response.
            Poll::Ready(Ok(()) | Err(PumpError::Stream(_))) => {
                self.sending = None;
                None
            }
            Poll::Ready(Err(PumpError::Body(error))) => {
                self.sending = None;
                Some(error)
            }
        }
    }

    /// Goes on sending the request. The stream was reset if that fails, which shows when the response is read.
    pub(crate) fn background(&mut self, cx: &mut Context<'_>) {
        if let Some(error) = self.drive(cx) {
            tracing::debug!(%error, "Request body failed while its response was not read");
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.drive(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        if !self.data_done {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    if self.stream.flow_control().release_capacity(data.len()).is_err() {
                        return Poll::Ready(Some(Err(BodyError::Incomplete)));
                    }
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => self.data_done = true,
                Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Reset(error)))),
                None => self.data_done = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) if error.reason() == Some(Reason::NO_ERROR) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(BodyError::Reset(error)))),
        }
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn remaining(&self) -> Option<u64> {
        if self.is_end_stream() { Some(0) } else { self.left }
    }
}

/// Moves a body into a stream as its window allows.
pub(crate) struct Pump {
    body: Body,
    stream: SendStream<Bytes>,
    waiting: Option<Bytes>,
    pub(crate) sent: u64,
}

/// Why a pump stopped.
pub(crate) enum PumpError {
    /// The body failed; the stream is reset.
    Body(BodyError),
    /// The peer reset the stream or the connection failed.
    Stream(::h2::Error),
}

impl Pump {
    pub(crate) fn new(body: Body, stream: SendStream<Bytes>) -> Self {
        Self { body, stream, waiting: None, sent: 0 }
    }

    /// Ready once the body's end is handed to the connection.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), PumpError>> {
        loop {
            if let Some(data) = self.waiting.take() {
                match self.send(data, cx) {
                    Poll::Ready(Ok(true)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Ok(false)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(PumpError::Stream(error))),
                    Poll::Pending => {
                        let error = ready!(self.body.background(cx));
                        self.stream.send_reset(Reason::INTERNAL_ERROR);
                        return Poll::Ready(Err(PumpError::Body(error)));
                    }
                }
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => {
                    return match self.stream.poll_reset(cx) {
                        Poll::Ready(Ok(reason)) => Poll::Ready(Err(PumpError::Stream(reason.into()))),
                        Poll::Ready(Err(error)) => Poll::Ready(Err(PumpError::Stream(error))),
                        Poll::Pending => Poll::Pending,
                    };
                }
                Poll::Ready(None) => {
                    self.stream.send_data(Bytes::new(), true).map_err(PumpError::Stream)?;
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Some(Err(error))) => {
                    self.stream.send_reset(Reason::INTERNAL_ERROR);
                    return Poll::Ready(Err(PumpError::Body(error)));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() && !self.body.is_end_stream() => {}
                    Ok(data) => self.waiting = Some(data),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.stream.send_trailers(trailers).map_err(PumpError::Stream)?;
                            return Poll::Ready(Ok(()));
                        }
                    }
                },
            }
        }
    }

    /// Sends as much as the window allows and waits for the rest; true when the body has ended.
    fn send(&mut self, mut data: Bytes, cx: &mut Context<'_>) -> Poll<Result<bool, ::h2::Error>> {
        loop {
            self.stream.reserve_capacity(data.len());
            let capacity = self.stream.capacity();
            if capacity >= data.len() {
                let end = self.body.is_end_stream();
                self.sent += data.len() as u64;
                self.stream.send_data(data, end)?;
                return Poll::Ready(Ok(end));
            }
            if capacity > 0 {
                self.sent += capacity as u64;
                self.stream.send_data(data.split_to(capacity), false)?;
                continue;
            }
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Err(Reason::CANCEL.into())),
                Poll::Pending => {
                    self.waiting = Some(data);
                    return Poll::Pending;
                }
            }
        }
    }
}
