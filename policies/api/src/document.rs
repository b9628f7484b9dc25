//! YAML files as documents whose fields know their line.
