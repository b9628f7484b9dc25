//! Packing messages into `Any` and out of it.

use crate::protobuf::Any;
use prost::{Message, Name};

/// An `Any` that does not hold the message asked for.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It holds another type.
    #[error("is of type `{found}`, `{wanted}` was expected")]
    Type {
        /// Type URL it should have.
        wanted: String,
        /// Type URL it has.
        found: String,
    },
    /// Its bytes are not that message.
    #[error("is not a valid `{wanted}`: {source}")]
    Malformed {
        /// Type URL it has.
        wanted: String,
        /// What is wrong with the bytes.
        source: prost::DecodeError,
    },
}

/// `message` packed under its own type URL.
pub fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// The message that `any` holds. Fails when it holds another type or malformed bytes.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, UnpackError> {
    let wanted = M::type_url();
    if any.type_url != wanted {
        return Err(UnpackError::Type { wanted, found: any.type_url.clone() });
    }
    M::decode(any.value.as_slice()).map_err(|source| UnpackError::Malformed { wanted, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Cluster;
    use crate::listener::Listener;
    use crate::type_url;

    #[test]
    fn what_is_packed_comes_out_and_nothing_else() {
        let cluster = Cluster { name: "outbound|80||a.b".to_owned(), ..Default::default() };
        let mut packed = any(&cluster);
        assert_eq!(packed.type_url, type_url::CLUSTER);
        assert_eq!(unpack::<Cluster>(&packed).unwrap(), cluster);
        assert!(matches!(unpack::<Listener>(&packed), Err(UnpackError::Type { .. })));
        packed.value.push(0xff);
        assert!(matches!(unpack::<Cluster>(&packed), Err(UnpackError::Malformed { .. })));
    }
}
