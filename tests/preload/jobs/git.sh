# SPDX-License-Identifier: BSD-2-Clause
export GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000' HOME=$PWD
export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e GIT_CONFIG_NOSYSTEM=1
git init -q -b main a && cd a || exit 9
cp -r ../tree .
for i in 1 2 3 4 5 6 7 8; do
	sed "s/$i/&&/g" ../words | head -n 20000 >w
	git add . && git commit -q -m "$i"
done
git rev-parse HEAD
git -c pack.threads=2 repack -a -d -q -f --depth=50; git prune; git fsck --full 2>&1
cd .. && git clone -q "file://$PWD/a" b && cd b || exit 8
git log --stat --format=%H | sha256sum
git log -p | sha256sum
git grep -c -n dog HEAD~3 | sort
git checkout -q HEAD~4 && git diff main | sha256sum
git merge-base HEAD main
