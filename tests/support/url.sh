# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this
# AMQP URLs and the management API, for the scripts beside this file, which source it. Nothing but bash and coreutils.
#
# url_parse sets these:
url_user='' url_password='' url_host='' url_port='' url_management=''

# url_decode TEXT: percent-decoding.
url_decode() {
    local text=${1//\\/\\\\}
    printf '%b' "${text//%/\\x}"
}

# url_parse AMQP_URL: takes it apart. The management API is that of WARREND_MANAGEMENT_URL, else port 15672 of the host.
url_parse() {
    local rest=${1#*://} credentials='' authority
    authority=${rest%%[/?]*}
    if [[ $authority == *@* ]]; then
        credentials=${authority%@*}
        authority=${authority##*@}
    fi
    url_user=$(url_decode "${credentials%%:*}")
    url_password=$(url_decode "${credentials#*:}")
    if [ -z "$credentials" ]; then
        url_user=guest url_password=guest
    fi
    url_port=5672
    if [[ $1 == amqps://* ]]; then
        url_port=5671
    fi
    url_host=$authority
    if [[ $authority =~ ^(.*):([0-9]+)$ ]]; then
        url_host=${BASH_REMATCH[1]} url_port=${BASH_REMATCH[2]}
    fi
    url_management=${WARREND_MANAGEMENT_URL:-http://$url_host:15672}
}

# url_with_vhost AMQP_URL VHOST: the same URL with another virtual host; the query is kept.
url_with_vhost() {
    local scheme=${1%%://*} rest=${1#*://} query=''
    if [[ $rest == *\?* ]]; then
        query="?${rest#*\?}" rest=${rest%%\?*}
    fi
    printf '%s://%s/%s%s\n' "$scheme" "${rest%%/*}" "$2" "$query"
}

# management METHOD PATH: calls the API at url_management as url_user, prints the status code, or fails when there is
# no answer. Plain HTTP only. In a subshell, so that the socket closes with it.
management() (
    base=${url_management%/} line='' code=''
    [[ $base == http://* ]] || return 1
    authority=${base#http://}
    host=${authority%:*} port=${authority##*:}
    if [ "$host" = "$authority" ]; then
        port=80
    fi
    login=$(printf '%s:%s' "$url_user" "$url_password" | base64 -w0)
    exec 3<>"/dev/tcp/${host//[\[\]]/}/$port" || return 1
    printf '%s %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\nContent-Type: application/json\r\nContent-Length: 0\r\nConnection: close\r\n\r\n' \
        "$1" "$2" "$authority" "$login" >&3 || return 1
    IFS= read -r -t 10 line <&3 || return 1
    code=${line#* }
    printf '%s\n' "${code%% *}"
) 2>/dev/null
