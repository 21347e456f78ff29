// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// jarDir is where Debian's packages put jars.
const jarDir = "/usr/share/java"

// javaClasses is the class path of ZooKeeper's client, its logging, and further jars.
func javaClasses(t *testing.T, jars ...string) string {
	t.Helper()
	needFiles(t, "java", "javac")
	var path []string
	for _, j := range append(jars, "zookeeper.jar", "zookeeper-jute.jar", "slf4j-api.jar", "slf4j-simple.jar") {
		j = filepath.Join(jarDir, j)
		needFiles(t, j)
		path = append(path, j)
	}
	return strings.Join(path, ":")
}

// java compiles sources and returns the command that runs the class.
func java(t *testing.T, class string, path string, sources ...string) []string {
	t.Helper()
	dir := t.TempDir()
	args := append([]string{"-proc:none", "-Xlint:-options", "-d", dir, "-cp", path}, sources...)
	if out, err := exec.Command("javac", args...).CombinedOutput(); err != nil {
		t.Fatalf("javac: %v\n%s", err, out)
	}
	return []string{"java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=off",
		"-cp", dir + ":" + path, class}
}

func TestJava(t *testing.T) {
	cmd := java(t, "ZooKeeperSuite", javaClasses(t), "java/Suite.java", "java/ZooKeeperSuite.java")
	e := open(t)
	suite(t, e, "every call of the API, all kinds of watches, multi and multiRead, ACLs, sessions, kill of the leader", cmd[0], append(cmd[1:], e.connect())...)
}

// curatorPath is the class path of programs that use Curator, and Curator's version.
func curatorPath(t *testing.T) (path, version string) {
	t.Helper()
	path = javaClasses(t, "curator-client.jar", "curator-framework.jar", "curator-recipes.jar", "curator-x-discovery.jar", "guava.jar",
		"jackson-core.jar", "jackson-databind.jar", "jackson-annotations.jar")
	named, err := filepath.Glob(filepath.Join(jarDir, "curator-recipes-*.jar"))
	if err != nil || len(named) != 1 {
		t.Fatalf("which version of Curator: %v, %v", named, err)
	}
	return path, strings.TrimSuffix(strings.TrimPrefix(filepath.Base(named[0]), "curator-recipes-"), ".jar")
}

func TestCurator(t *testing.T) {
	path, version := curatorPath(t)
	cmd := java(t, "CuratorSuite", path, "java/Suite.java", "java/CuratorSuite.java")
	e := open(t)
	suite(t, e, "framework and all recipes, service discovery, kill of the leader", cmd[0], append(cmd[1:], e.connect(), version)...)
}
