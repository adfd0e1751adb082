#!/bin/bash
# git: 1,000 commits, clone, gc, fsck, branches, rebase, worktree, push over a path.
# packages: git
# timeout: 180
. "$(dirname "$0")/lib.sh.inc"
export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
git config --global init.defaultBranch main
git config --global protocol.file.allow always
git init -q repo
{
    for i in $(seq 1000); do
        printf 'commit refs/heads/main\nmark :%d\ncommitter a <a@b> %d +0000\ndata 6\nc %04d\n' "$i" $((1700000000 + i)) "$i"
        printf 'M 100644 inline dir%d/f%d\ndata 8\ntext %03d\n' $((i % 10)) $((i % 100)) $((i % 1000))
    done
} | git -C repo fast-import --quiet
git -C repo checkout -q main
is "$(git -C repo rev-list --count main)" 1000
cd repo
for i in $(seq 20); do echo "$i" >> log; git add log; git commit -q -m "by hand $i"; done
is "$(git log --oneline | wc -l)" 1020
is "$(git status --porcelain | wc -l)" 0
git checkout -q -b topic HEAD~5
echo topic > topic; git add topic; git commit -q -m topic
git rebase -q main
is "$(git log --format=%s -1)" topic
git checkout -q main
git merge -q --no-ff -m merged topic
git gc -q --aggressive --prune=now
git fsck --full --strict 2>&1 | { ! grep -i error; }
cd ..
git clone -q --no-hardlinks repo clone
git clone -q "file://$scratch/repo" clone2
is "$(git -C clone rev-parse HEAD)" "$(git -C repo rev-parse HEAD)"
is "$(git -C clone2 rev-parse HEAD)" "$(git -C repo rev-parse HEAD)"
git clone -q --bare repo bare.git
git -C clone remote set-url origin "$scratch/bare.git"
(cd clone && echo new > new && git add new && git commit -q -m new && git push -q origin main)
is "$(git -C bare.git log --format=%s -1 main)" new
git -C repo worktree add -q ../wt topic
is "$(ls wt/topic)" wt/topic
is "$(git -C repo grep -c text -- dir3 | wc -l)" 10
is "$(git -C repo blame log | wc -l)" 20
git -C repo archive main | tar t > /dev/null
echo ok
