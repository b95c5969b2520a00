package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"tidemark/auth"
)

// tokenCommand groups the commands for tokens.
type tokenCommand struct {
	Hash tokenHashCommand `cmd:"" help:"Print the entry of a new token, or of one from stdin, for --tokens-file. A new token is printed once, on stderr."`
}

// A tokenHashCommand prints the entry of a token.
type tokenHashCommand struct {
	Name       string   `help:"Name of the token in logs." required:"" placeholder:"NAME" env:"-"`
	Workspaces []string `help:"Workspaces that the token is for; '*' for all." required:"" placeholder:"ID" name:"workspace" env:"-"`
	Rights     []string `help:"Rights: read (query API), admin (admin address), or both." name:"right" enum:"read,admin" default:"read" placeholder:"RIGHT" env:"-"`
	Stdin      bool     `help:"Read the token from stdin instead of making one." env:"-"`
}

// Run prints the entry on stdout, so that it can be appended to the file.
func (c *tokenHashCommand) Run(_ context.Context, con console) error {
	token := auth.NewToken()
	if c.Stdin {
		data, err := io.ReadAll(io.LimitReader(con.in, 64<<10))
		if err != nil {
			return fmt.Errorf("read the token from stdin: %w", err)
		}
		token = strings.TrimSpace(string(data))
	}
	entry, err := auth.Entry(token, c.Name, c.Workspaces, c.Rights)
	if err != nil {
		return usageError{err}
	}
	if !c.Stdin {
		con.note("%s", token)
	}
	_, err = con.out.Write(entry)
	return err
}
