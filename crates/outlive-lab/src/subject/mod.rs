//! What stands between clients and servers: the thing that is tested or compared.

pub mod routing;
