#!/bin/sh
# authone - let one user in: name, password, uid, gid and home are the lines of $account
account=/etc/courier/authone
lf='
'
[ -z "$AUTHENTICATED" ] || exec "$@"
record=$(cat <&3; echo .)
record=${record%.}
if [ -z "$record" ]; then
    echo AUTHFAILURE >&2
    exit 1
fi
home=
for name in user password uid gid home; do
    IFS= read -r "$name"
done < "$account"
if [ -z "$home" ]; then # it can't tell: the login program again, as it was called
    set -- "$AUTHUSER"
    number=1
    while [ "$number" -lt "$AUTHARGC" ]; do
        eval "set -- \"\$@\" \"\$AUTHARGV$number\""
        number=$((number + 1))
    done
    exec "$@" 3<&-
fi
case ${record#*"$lf"} in
"login$lf$user$lf$password$lf" | "login$lf$user$lf$password$lf$lf")
    export AUTHENTICATED="$user" AUTHADDR="$user" AUTHFULLNAME= MAILDIR= MAILDIRQUOTA= OPTIONS=
    exec setpriv --reuid="$uid" --regid="$gid" --groups="$gid" \
        /bin/sh -c 'cd "$0" && exec "$@"' "$home" "$@" 3<&-
    ;;
esac
exec "$@" 3<<END
${record%"$lf"}
END
