//! Mercury's reference plugin for SAP HANA.
