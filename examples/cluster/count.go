// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"go/scanner"
	"go/token"
	"os"
	"path/filepath"
)

// Counts is what is counted in a file, or in many.
type Counts struct {
	Files  int `json:"files,omitempty"`
	Lines  int `json:"lines"`
	Words  int `json:"words"`
	Idents int `json:"idents"`
}

func (c *Counts) add(o Counts) {
	c.Files += o.Files
	c.Lines += o.Lines
	c.Words += o.Words
	c.Idents += o.Idents
}

// count reads one file below dir.
func count(dir, file string) (Counts, error) {
	src, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(file)))
	if err != nil {
		return Counts{}, err
	}
	return countBytes(src), nil
}

func countBytes(src []byte) Counts {
	c := Counts{Files: 1, Lines: bytes.Count(src, []byte{'\n'})}
	if n := len(src); n > 0 && src[n-1] != '\n' {
		c.Lines++
	}
	for range bytes.FieldsSeq(src) {
		c.Words++
	}
	set := token.NewFileSet()
	var s scanner.Scanner
	s.Init(set.AddFile("", set.Base(), len(src)), src, nil, 0) // errors are skipped: some files are wrong on purpose
	for {
		_, tok, _ := s.Scan()
		switch tok {
		case token.IDENT:
			c.Idents++
		case token.EOF:
			return c
		}
	}
}
