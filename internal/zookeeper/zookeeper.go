// SPDX-License-Identifier: Apache-2.0

package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// jars are the class path of Debian's package; the last one only decides where log lines go.
var jars = []string{"zookeeper.jar", "zookeeper-jute.jar", "slf4j-simple.jar"}

const jarDir = "/usr/share/java"

// Installed says what is missing, nil if a ZooKeeper can be started.
func Installed() error {
	if _, err := exec.LookPath("java"); err != nil {
		return fmt.Errorf("zookeeper: %w", err)
	}
	if _, err := os.Stat(filepath.Join(jarDir, jars[0])); err != nil {
		return fmt.Errorf("zookeeper: Debian's package zookeeper is not installed: %w", err)
	}
	return nil
}

// Options of Start; the zero value works.
type Options struct {
	// Dir keeps the server's data; "" means a temporary directory that Stop removes.
	Dir string
	// Addr is the client port's, "127.0.0.1:port"; "" means any free port.
	Addr string
	// ID makes the server a member of the ensemble that the server.N lines of Config describe; Start waits until the
	// ensemble serves. 0 means a stand-alone server.
	ID int
	// Config adds lines to zoo.cfg, each "key=value".
	Config []string
	// Properties adds system properties, each "name=value".
	Properties []string
	// Sync makes every transaction reach the disk before it is answered. Without it tests are quicker.
	Sync bool
}

// Server is a running ZooKeeper.
type Server struct {
	Addr string // of the client port

	cmd  *exec.Cmd
	log  *os.File
	done chan struct{}
	temp string
}

// Start starts a ZooKeeper on loopback and waits until it answers or ctx ends. Its
// tick is 500 ms, so that sessions last from 1 s to 30 s, and every four-letter word is allowed.
func Start(ctx context.Context, o Options) (_ *Server, err error) {
	if err := Installed(); err != nil {
		return nil, err
	}
	s := &Server{done: make(chan struct{})}
	if o.Dir == "" {
		if o.Dir, err = os.MkdirTemp("", "zookeeper-"); err != nil {
			return nil, err
		}
		s.temp = o.Dir
	}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	if s.Addr = o.Addr; s.Addr == "" {
		port, err := freePort()
		if err != nil {
			return nil, err
		}
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	}
	host, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(o.Dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	if o.ID != 0 {
		if err := os.WriteFile(filepath.Join(data, "myid"), []byte(strconv.Itoa(o.ID)), 0o600); err != nil {
			return nil, err
		}
	}
	lines := append([]string{
		"tickTime=500", "maxSessionTimeout=30000", "maxClientCnxns=0", "admin.enableServer=false", "4lw.commands.whitelist=*",
		"clientPortAddress=" + host, "clientPort=" + port, "dataDir=" + data,
	}, o.Config...)
	cfg := filepath.Join(o.Dir, "zoo.cfg")
	if err := os.WriteFile(cfg, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	if s.log, err = os.OpenFile(filepath.Join(o.Dir, "zookeeper.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	var path []string
	for _, j := range jars {
		path = append(path, filepath.Join(jarDir, j))
	}
	args := []string{"-Xmx512m", "-cp", strings.Join(path, ":"), "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dzookeeper.extendedTypesEnabled=true", "-Dzookeeper.jmx.log4j.disable=true", "-Dzookeeper.forceSync=" + map[bool]string{true: "yes", false: "no"}[o.Sync]}
	for _, p := range o.Properties {
		args = append(args, "-D"+p)
	}
	args = append(args, "org.apache.zookeeper.server.quorum.QuorumPeerMain", cfg)
	s.cmd = exec.Command("java", args...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = o.Dir, s.log, s.log
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return nil, err
	}
	go func() {
		s.cmd.Wait()
		close(s.done)
	}()
	if err := s.ready(ctx); err != nil {
		text, _ := os.ReadFile(s.log.Name())
		return nil, fmt.Errorf("zookeeper did not start: %w\n%s", err, text)
	}
	return s, nil
}

// StartEnsemble starts n servers that form an ensemble, and waits until all of them serve. With n = 1 it is Start.
// o.Dir, o.Addr and o.ID are its own.
func StartEnsemble(ctx context.Context, n int, o Options) (servers []*Server, err error) {
	if n > 1 {
		o.Config = append(slices.Clone(o.Config), "initLimit=20", "syncLimit=10")
		for i := range n {
			var ports [2]int
			for k := range ports {
				if ports[k], err = freePort(); err != nil {
					return nil, err
				}
			}
			o.Config = append(o.Config, fmt.Sprintf("server.%d=127.0.0.1:%d:%d", i+1, ports[0], ports[1]))
		}
	}
	servers = make([]*Server, n)
	errs := make([]error, n)
	var work sync.WaitGroup
	for i := range n {
		o := o
		o.Dir, o.Addr, o.ID = "", "", 0
		if n > 1 {
			o.ID = i + 1
		}
		work.Go(func() { servers[i], errs[i] = Start(ctx, o) })
	}
	work.Wait()
	if err := errors.Join(errs...); err != nil {
		for _, s := range servers {
			if s != nil {
				s.Stop()
			}
		}
		return nil, err
	}
	return servers, nil
}

// Pid is the server's process.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

func (s *Server) ready(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if answer, err := s.Word("srvr"); err == nil && strings.Contains(answer, "Mode: ") {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.done:
			return errors.New("its process ended")
		case <-tick.C:
		}
	}
}

// Word sends a four-letter word and returns the answer.
func (s *Server) Word(word string) (string, error) {
	c, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, word); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// Stop kills the server, waits for its end and removes a temporary directory.
func (s *Server) Stop() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		<-s.done
	}
	if s.log != nil {
		s.log.Close()
	}
	if s.temp != "" {
		os.RemoveAll(s.temp)
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}
