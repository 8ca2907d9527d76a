"""Every `auto` of the training becomes a value here, with the reason for it."""
