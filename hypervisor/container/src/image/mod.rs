//! A content-addressed store of images in OCI layout.
