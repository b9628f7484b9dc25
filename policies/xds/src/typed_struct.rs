//! `xds.type.v3.TypedStruct`, declared by hand: extensions without generated messages.

/// A struct that stands for a message of another type.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TypedStruct {
    /// Type URL of that message.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Its content.
    #[prost(message, optional, tag = "2")]
    pub value: Option<crate::protobuf::Struct>,
}

// === impl TypedStruct ===

impl prost::Name for TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "xds.type.v3";

    fn full_name() -> String {
        "xds.type.v3.TypedStruct".to_owned()
    }

    fn type_url() -> String {
        crate::type_url::TYPED_STRUCT_XDS.to_owned()
    }
}
