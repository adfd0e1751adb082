#!/bin/bash
# go build and run: goroutines, net/http on loopback, os/exec, the runtime's preemption by signals.
# packages: golang-go
# long
# timeout: 300
. "$(dirname "$0")/lib.sh.inc"
export GOCACHE=$scratch/cache GOPATH=$scratch/gopath GOTELEMETRY=off GOFLAGS=-mod=mod GO111MODULE=on CGO_ENABLED=0
mkdir m && cd m
cat > go.mod <<'X'
module example.org/m

go 1.18
X
cat > main.go <<'X'
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

func fib(n int) int {
	if n < 2 {
		return n
	}
	return fib(n-1) + fib(n-2)
}

func check(ok bool, what string) {
	if !ok {
		fmt.Println("failed:", what)
		os.Exit(1)
	}
}

func main() {
	var wg sync.WaitGroup
	ch := make(chan int, 100)
	for i := 0; i < 1000; i++ {
		wg.Add(1)
		go func(i int) { defer wg.Done(); ch <- i }(i)
	}
	go func() { wg.Wait(); close(ch) }()
	sum := 0
	for v := range ch {
		sum += v
	}
	check(sum == 499500, "goroutines")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err == nil, "listen")
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, strings.ToUpper(r.URL.Path)) }))
	var bad sync.Map
	for i := 0; i < 50; i++ {
		wg.Add(1)
		go func(i int) {
			defer wg.Done()
			r, err := http.Get(fmt.Sprintf("http://%s/path%d", l.Addr(), i))
			if err != nil {
				bad.Store(i, err)
				return
			}
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if string(b) != fmt.Sprintf("/PATH%d", i) {
				bad.Store(i, string(b))
			}
		}(i)
	}
	wg.Wait()
	bad.Range(func(k, v any) bool { check(false, fmt.Sprint("http ", k, v)); return true })
	out, err := exec.Command("sh", "-c", "echo $0", "arg").CombinedOutput()
	check(err == nil && len(out) > 0, "exec")
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	err = exec.CommandContext(ctx, "sleep", "10").Run()
	cancel()
	check(err != nil, "kill")
	// A tight loop without calls must be preempted by a signal.
	runtime.GOMAXPROCS(1)
	done := make(chan bool)
	stop := false
	go func() {
		for i := 0; !stop; i++ {
		}
		done <- true
	}()
	time.Sleep(20 * time.Millisecond)
	runtime.GC()
	stop = true
	runtime.GOMAXPROCS(4)
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	<-sig
	start := time.Now()
	time.Sleep(30 * time.Millisecond)
	check(time.Since(start) >= 30*time.Millisecond, "sleep")
	var m [][]byte
	for i := 0; i < 2000; i++ {
		m = append(m, make([]byte, 10000))
		if i%100 == 0 {
			m = nil
			runtime.GC()
		}
	}
	dir, _ := os.MkdirTemp("", "go")
	for i := 0; i < 100; i++ {
		os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("x"), 0644)
	}
	e, _ := os.ReadDir(dir)
	check(len(e) == 100, "files")
	check(fib(30) == 832040, "fib")
	fmt.Println("ok")
}
X
cat > main_test.go <<'X'
package main

import "testing"

func TestFib(t *testing.T) {
	if fib(10) != 55 {
		t.Fatal("fib")
	}
}
X
go vet ./... || :
go build -o prog .
is "$(timeout 60 ./prog)" ok
go test ./... > test.log 2>&1 || { cat test.log >&2; exit 1; }
is "$(go run . )" ok
echo ok
