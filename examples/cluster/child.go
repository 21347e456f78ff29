// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// child is a member's process as the first process sees it. Only the director's goroutine uses it.
type child struct {
	id      string
	data    string
	life    int // how often it was started
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	running bool // neither killed nor gone
	gone    bool // waited for
	told    chan<- told

	addr   string
	role   string
	term   uint64
	mine   int // results recorded in this life
	before int // and in former ones, as far as told
	done   bool
}

// told is a notice and whose it is.
type told struct {
	notice
	from *child
	life int
}

// start starts the process; its notices go to c.told, the last of which is isGone.
func (c *child) start(executable string) error {
	cmd := exec.Command(executable)
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.life++
	c.cmd, c.stdin, c.running, c.gone = cmd, stdin, true, false
	c.addr, c.role, c.term, c.done = "", "", 0, false
	c.before, c.mine = c.before+c.mine, 0
	life := c.life
	go func() {
		dec := json.NewDecoder(stdout)
		for {
			var n notice
			if dec.Decode(&n) != nil {
				break
			}
			c.told <- told{n, c, life}
		}
		text := "exit status 0"
		if err := cmd.Wait(); err != nil {
			text = err.Error()
		}
		c.told <- told{notice{What: isGone, Text: text}, c, life}
	}()
	return nil
}

// give sends an order. A process that does not listen any more will soon be reported as gone.
func (c *child) give(o order) {
	if err := json.NewEncoder(c.stdin).Encode(o); err != nil && c.running {
		fmt.Fprintf(os.Stderr, "cluster: no connection to %s: %v\n", c.id, err)
	}
}

// kill is SIGKILL: the process gets no chance to say goodbye.
func (c *child) kill() error { return c.cmd.Process.Kill() }
