"""Device files, one `NAME.toml` each; `esl_lava.devices` reads them."""
