"""What more than one service imports; each module is named for its one purpose."""
